#!/usr/bin/env bash
# Builds the sdist and, from it, a wheel for each Python; checks them and prints what they are.
# usage: scripts/build_wheels.sh [--out DIR] [--aarch64] [PYTHON ...]
#   PYTHON     interpreters to build for; without any, each of 3.10 to 3.15 that is on this machine
#   --out DIR  where wheels go (default: wheelhouse)
#   --aarch64  build for aarch64 on this machine
# NNTAP_WHEEL_TOOLS: where the tools are, or go (default: build/wheel-tools).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/wheelhouse
target=$(uname -m)
pythons=()
while test $# -gt 0; do
  case $1 in
    --out) out=$2 && shift ;;
    --aarch64) target=aarch64 ;;
    -*) sed -n '2,7s/^# //p' "$0" >&2 && exit 2 ;;
    *) pythons+=("$1") ;;
  esac
  shift
done
if test ${#pythons[@]} -eq 0; then mapfile -t pythons < <("$root/scripts/find_pythons.sh"); fi

tools=${NNTAP_WHEEL_TOOLS:-$root/build/wheel-tools}
"$root/scripts/wheel_tools.sh" "$tools"
PATH=$tools/bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2 && exit 1; }; }

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$("$root/scripts/source_date.sh")}
export SOURCE_DATE_EPOCH NNTAP_ZIG=$tools/zig CXX=$root/scripts/zig-c++
export UV_BUILD_CONSTRAINT=$root/scripts/wheel-constraints.txt UV_PYTHON_DOWNLOADS=never NNTAP_WERROR=ON
umask 022

"$root/scripts/build_sdist.sh" "$work/sdist"
for python in "${pythons[@]}"; do
  if test "$target" != "$(uname -m)"; then
    export NNTAP_ZIG_TARGET=$target-linux-gnu.2.28 _PYTHON_HOST_PLATFORM=linux-$target
    # pybind11 would name the module as the Python that runs it names its own.
    suffix=$("$python" -c 'import sys, sysconfig as s; print(s.get_config_var("EXT_SUFFIX").replace(
      s.get_config_var("MULTIARCH"), sys.argv[1] + "-linux-gnu"))' "$target")
    export CMAKE_ARGS="-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=$target -DPYTHON_MODULE_EXTENSION=$suffix"
  fi
  quietly uv build --wheel --python "$python" --out-dir "$work/built" "$work"/sdist/*.tar.gz
done
mkdir -p "$out"
for wheel in "$work"/built/*.whl; do
  quietly "$root/scripts/repair_wheel.sh" "$wheel" "$work/fit"
done
python "$root/scripts/check_wheels.py" "$work"/fit/*.whl --pythons "${pythons[@]}"
cp "$work"/fit/*.whl "$work"/sdist/*.tar.gz "$out"
