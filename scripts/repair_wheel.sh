#!/usr/bin/env bash
# Checks that a Linux wheel needs nothing newer than glibc 2.28 and gives it the tag that says so.
# usage: scripts/repair_wheel.sh WHEEL DIR; the tools are on the PATH or in NNTAP_WHEEL_TOOLS
set -euo pipefail
wheel=$1 dir=$2
machine=${wheel##*linux_} # ...-linux_x86_64.whl
machine=${machine%.whl}
tools=${NNTAP_WHEEL_TOOLS:+$NNTAP_WHEEL_TOOLS/bin/}

if test "$machine" = "$(uname -m)"; then
  "${tools}auditwheel" repair --only-plat --plat "manylinux_2_28_$machine" --wheel-dir "$dir" "$wheel"
else # auditwheel knows the policies of its own machine alone; check_wheels.py reads the symbols of any
  mkdir -p "$dir"
  cp "$wheel" "$dir"
  "${tools}wheel" tags --remove --platform-tag "manylinux_2_28_$machine" "$dir/$(basename "$wheel")"
fi
