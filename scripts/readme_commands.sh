#!/usr/bin/env bash
# Prints the commands of the README's first block of commands, one a line, without their comments: what .ci/run runs.
set -euo pipefail
awk '/^```bash$/ { inside = 1; next } inside && /^```$/ { exit } inside { sub(/ *#.*/, ""); print }' \
  "$(dirname "$0")/../README.md"
