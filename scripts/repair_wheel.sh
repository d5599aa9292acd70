#!/usr/bin/env bash
# Checks that a Linux wheel needs nothing newer than glibc 2.28 and gives it the tag that says so.
# usage: scripts/repair_wheel.sh WHEEL DIR; auditwheel is on the PATH or in NNTAP_WHEEL_TOOLS
set -euo pipefail
wheel=$1 dir=$2
machine=${wheel##*linux_} # ...-linux_x86_64.whl
"${NNTAP_WHEEL_TOOLS:+$NNTAP_WHEEL_TOOLS/bin/}auditwheel" repair --only-plat --plat "manylinux_2_28_${machine%.whl}" --wheel-dir "$dir" "$wheel"
