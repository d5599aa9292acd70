#!/usr/bin/env bash
# Checks an installed nntap on this machine's GPU in under nine minutes: the tests that need one, compute-sanitizer where
# there is one, and the GPU benchmarks. Writes one JSON file and prints a summary. Without a GPU it says so and exits 0.
#
# usage: benchmarks/gpu_check.sh [FOLDER FOR THE RESULTS]    (PYTHON=... chooses the interpreter)
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 PATH=$PATH:/usr/local/cuda/bin

whole=530 # seconds for everything; what runs then is ended within five more

# The seconds that a part may take: those given, or fewer where fewer are left of the whole.
at_most() {
  local left=$((whole - SECONDS))
  left=$((left < $1 ? left : $1))
  echo $((left > 1 ? left : 1))
}

# within SECONDS COMMAND...: an interrupt comes first, so that pytest still says what it has found.
within() { timeout --signal=INT --kill-after=5 "$(at_most "$1")" "${@:2}"; }

within 90 "$python" -m benchmarks.gpu.ready
case $? in
  0) ;;
  3) exit 0 ;;
  *) exit 1 ;;
esac
out=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd) || exit 1
within 60 "$python" -m nntap doctor || exit 1
failed=0

echo "== tests that need a GPU"
within 180 "$python" -m pytest -q -m cuda -p no:cacheprovider --timeout 60 --junitxml "$out/tests.xml" \
  tests/cuda/test_on_gpu.py tests/benchmarks/test_timeline.py | tee "$out/tests.log" || failed=1
tests=$(tail -n 1 "$out/tests.log")

echo "== compute-sanitizer"
memcheck="not run: there is none on this machine"
if command -v compute-sanitizer >/dev/null; then
  # Without torch's cache every tensor is an allocation of its own, and what is written past its end is seen. Calls of
  # the driver that fail are no errors: libraries try out what there is.
  within 90 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
    compute-sanitizer --tool memcheck --report-api-errors no --launch-timeout 0 --error-exitcode 9 \
    "$python" -m pytest -q -m cuda -p no:cacheprovider tests/cuda/test_on_gpu.py \
    -k "layouts and float32 or one_launch or streams" >"$out/sanitizer.log" 2>&1
  code=$?
  if grep -q "Device not supported" "$out/sanitizer.log"; then
    memcheck="not run: it does not support this GPU"
  elif [ $code = 0 ]; then
    memcheck="no errors"
  elif [ $code = 124 ] || [ $code = 137 ]; then
    memcheck="not finished in its time"
  else
    failed=1 memcheck="failed"
    tail -n 30 "$out/sanitizer.log"
  fi
fi
echo "$memcheck"

echo "== benchmarks"
# They start nothing in the last half minute, and so come to their table before they are ended.
within "$whole" "$python" -m benchmarks.gpu --seconds $(($(at_most "$whole") - 30)) --out "$out/gpu.json" \
  --note "tests: $tests" --note "compute-sanitizer: $memcheck" || failed=1
exit $failed
