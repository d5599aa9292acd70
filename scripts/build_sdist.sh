#!/usr/bin/env bash
# Builds the sdist of the commit. usage: scripts/build_sdist.sh DIR; needs uv on the PATH (see wheel_tools.sh).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
umask 022
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$("$root/scripts/source_date.sh")}
export SOURCE_DATE_EPOCH UV_BUILD_CONSTRAINT=$root/scripts/wheel-constraints.txt
uv build --quiet --sdist --out-dir "$1" "$root"
