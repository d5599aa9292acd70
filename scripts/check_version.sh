#!/usr/bin/env bash
# Fails where a tag and the version differ. usage: scripts/check_version.sh TAG, such as v0.1.0
set -euo pipefail
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$(dirname "$0")/../python/nntap/_version.py")
test "$1" = "v$version" || { echo "the tag is $1, but the version is $version: tag v$version" >&2 && exit 1; }
