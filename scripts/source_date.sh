#!/usr/bin/env bash
# Prints the time, in seconds since 1970, that files in the sdist and the wheels get: that of the commit.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/python/nntap/_version.py" # in an sdist
