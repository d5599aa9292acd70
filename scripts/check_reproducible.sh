#!/usr/bin/env bash
# Builds the last commit twice, in other folders, with another umask, time zone and language, and compares the bytes.
# usage: scripts/check_reproducible.sh [PYTHON]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-$("$root/scripts/find_pythons.sh" | sed -n 1p)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export NNTAP_WHEEL_TOOLS=${NNTAP_WHEEL_TOOLS:-$root/build/wheel-tools}

build() { # FOLDER
  git clone --quiet "$root" "$1/nntap"
  mkdir "$1/tmp"
  TMPDIR=$1/tmp "$1/nntap/scripts/build_wheels.sh" --out "$1/out" "$python" >"$1/log" || { cat "$1/log" && exit 1; }
}
mkdir -p "$work/one" "$work/another/and/deeper"
build "$work/one"
(umask 077 && export TZ=Asia/Tokyo LC_ALL=C && build "$work/another/and/deeper")

cd "$work/one/out" && sha256sum ./* | tee "$work/sums"
cd "$work/another/and/deeper/out" && sha256sum --check --quiet "$work/sums" && echo "The same bytes twice."
