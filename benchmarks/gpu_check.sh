#!/usr/bin/env bash
# Checks an installed nntap on this machine's GPU in under nine minutes: the tests that need one, the GPU benchmarks, and
# compute-sanitizer where there is one. Writes one JSON file and prints a summary. Without a GPU it says so and exits 0.
#
# usage: benchmarks/gpu_check.sh [FOLDER]
#   FOLDER        where gpu.json and the logs go (default: gpu-results)
#   PYTHON        the interpreter (default: python3)
#   NNTAP_COMMIT  the revision that the result names, where this is no clone
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

# Whether a code says that a part was ended because its time was over.
is_timeout() { test "$1" = 124 || test "$1" = 137; }

failed=0
within 90 "$python" -m benchmarks.gpu.ready
code=$?
if [ $code = 3 ]; then exit 0; fi
if is_timeout $code; then
  echo "importing torch, nnsight and transformers took over 90 seconds: import them once before this, from a local disk"
fi
if [ $code != 0 ]; then exit 1; fi
out=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd) || exit 1

within 60 "$python" -m nntap doctor
code=$?
if is_timeout $code; then echo "nntap doctor did not end in 60 seconds"; fi
if [ $code != 0 ]; then failed=1; fi

echo "== tests that need a GPU"
within 180 "$python" -m pytest -v -m cuda -p no:cacheprovider --timeout 60 -o faulthandler_timeout=45 \
  --junitxml "$out/tests.xml" tests/cuda/test_on_gpu.py tests/benchmarks/test_timeline.py | tee "$out/tests.log"
code=${PIPESTATUS[0]}
if [ "$code" != 0 ]; then failed=1; fi
tests=$(tail -n 1 "$out/tests.log")
if is_timeout "$code"; then tests="not finished in their time, the last one: $(grep :: "$out/tests.log" | tail -n 1)"; fi
echo "$tests"

# They start nothing in their last half minute, and so come to their table before they are ended. The figures come before
# the sanitizer, which gets the rest.
echo "== benchmarks"
for_sanitizer=60
theirs=$(($(at_most "$whole") - for_sanitizer))
theirs=$((theirs > 1 ? theirs : 1))
within "$theirs" "$python" -m benchmarks.gpu --seconds $((theirs - 30)) --out "$out/gpu.json" --note "tests: $tests" ||
  failed=1

echo "== compute-sanitizer"
memcheck() {
  # Without torch's cache every tensor is an allocation of its own, and what is written past its end is seen. Calls of
  # the driver that fail are no errors: libraries try out what there is.
  within 90 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
    compute-sanitizer --tool memcheck --report-api-errors no --launch-timeout 0 --error-exitcode 9 \
    "$python" -m pytest -v -m cuda -p no:cacheprovider tests/cuda/test_on_gpu.py -k "$1" >>"$out/sanitizer.log" 2>&1
  local code=$?
  if grep -q "Device not supported" "$out/sanitizer.log"; then
    said="not run: it does not support this GPU"
  elif grep -qE "^=+ (Invalid|Misaligned|ERROR SUMMARY: [1-9])" "$out/sanitizer.log"; then
    said="failed"
  elif is_timeout $code; then
    said="not finished in its time"
  elif [ $code != 0 ]; then
    said="failed"
  fi
}
said="no errors"
rm -f "$out/sanitizer.log"
if ! command -v compute-sanitizer >/dev/null; then
  said="not run: there is none on this machine"
elif [ "$(at_most 30)" -lt 30 ]; then
  said="not run: no time left"
else
  memcheck "one_launch"
  if [ "$said" = "no errors" ]; then memcheck "layouts and float32 or streams"; fi
fi
if [ "$said" = failed ]; then
  failed=1
  tail -n 30 "$out/sanitizer.log"
fi
within 20 "$python" -m benchmarks.gpu.note "$out/gpu.json" "compute-sanitizer: $said"
exit $failed
