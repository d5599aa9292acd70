#!/usr/bin/env bash
# Checks an installed nntap on this machine's GPU in under nine minutes: the tests that need one, compute-sanitizer where
# there is one, and the GPU benchmarks. Writes one JSON file and prints a summary. Without a GPU it says so and exits 0.
#
# usage: benchmarks/gpu_check.sh [FOLDER FOR THE RESULTS]    (PYTHON=... chooses the interpreter)
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd)
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>"$out/torch.log"; then
  echo "not run: torch finds no GPU here"
  exit 0
fi
"$python" -m nntap doctor || exit 1
failed=0

echo "== tests that need a GPU"
timeout 240 "$python" -m pytest -q -m cuda tests/cuda/test_on_gpu.py -p no:cacheprovider --junitxml "$out/tests.xml" ||
  failed=1

echo "== compute-sanitizer"
if command -v compute-sanitizer >/dev/null; then
  timeout 90 compute-sanitizer --tool memcheck --error-exitcode 9 "$python" -m pytest -q -m cuda -p no:cacheprovider \
    tests/cuda/test_on_gpu.py -k "layouts and float32 or one_launch or streams" >"$out/sanitizer.log" 2>&1
  case $? in
    0) echo "no errors" ;;
    124) echo "not finished in its time" ;;
    *) failed=1 && tail -n 30 "$out/sanitizer.log" ;;
  esac
else
  echo "not run: there is none on this machine"
fi

echo "== benchmarks"
timeout 210 "$python" -m benchmarks.gpu --out "$out/gpu.json" || failed=1
exit $failed
