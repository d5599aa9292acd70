#!/usr/bin/env bash
# Prints the interpreters that wheels are built and tested for: one of each version that is on this machine.
set -euo pipefail
for version in 3.10 3.11 3.12 3.13 3.14 3.15; do
  for python in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python "$(command -v "python$version" || true)"; do
    if test -x "$python" && "$python" -c 'import sys' 2>/dev/null; then echo "$python" && break; fi
  done
done
