#!/usr/bin/env bash
# Build the kernels with AddressSanitizer and UndefinedBehaviorSanitizer and run their tests on them; any report is a failure.
# Usage: benches/sanitize.sh PYTHON [PYTEST ARGUMENTS…]
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(realpath -s "$1")
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

CLOUD_RUNTIMES_BUILD=native "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
  --target "$folder/site" . -Ccmake.define.CR_SANITIZE=address,undefined -Ccmake.build-type=RelWithDebInfo
cp -r tests benches docs src_ext README.md pyproject.toml "$folder"

cd "$folder"
libraries="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
status=0
export PYTHONPATH="$folder/site:$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
export PYTHONMALLOC=malloc PYTHONSAFEPATH=1 CLOUD_RUNTIMES_NATIVE=require
# -S, since an editable install puts itself before the path
found=$(ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$libraries" "$python" -S -c 'from cloud_runtimes._native import batch; print(batch.__file__)')
if [[ "$found" != "$folder"/site/* ]] || ! grep -q __asan_ "$found"; then
  echo "sanitizers: $found is not what was built with them" >&2
  exit 1
fi
# how much memory the sanitizers' allocator holds, and how fast it is, says nothing; leaks have tests of their own: the interpreter's would drown ours here
LD_PRELOAD="$libraries" \
  ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:log_path=$folder/report" \
  UBSAN_OPTIONS="print_stacktrace=1:log_path=$folder/report" \
  "$python" -S -m pytest -q -p no:cacheprovider tests/kernels tests/codec \
  --deselect tests/kernels/test_speed.py \
  --deselect tests/codec/test_allocation.py \
  --deselect "tests/codec/test_json.py::test_in_a_process_of_its_own" \
  --deselect tests/kernels/test_hot_path.py::test_memory_of_a_buffered_event \
  --deselect tests/kernels/test_hot_path.py::test_memory_stays_flat -m "not process" "$@" || status=$?
if compgen -G "$folder/report*" >/dev/null; then
  cat "$folder"/report*
  echo "sanitizers: reports" >&2
  exit 1
fi
echo "sanitizers: no reports"
exit "$status"
