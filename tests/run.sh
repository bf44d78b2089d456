#!/bin/sh
# Check style and types, then run the tests on two processes; the environment is made where it is missing.
#   sh tests/run.sh [options of pytest]
#   sh tests/run.sh --style     style and types only
#   sh tests/run.sh --slow      the slow tests as well
#   sh tests/run.sh --cuda      what must hold on a GPU, and nothing else
#   sh tests/run.sh --matrix    the tests in environments of Python 3.10 and 3.12 and of PyTorch 2.11 (tests/matrix.sh)
set -eu
cd "$(dirname "$0")/.."
if [ "${1:-}" = --matrix ]; then
    shift
    exec sh tests/matrix.sh "$@"
fi
sh init.sh

.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
case "${1:-}" in
    --style) exit 0 ;;
    --slow) shift; set -- -m "not cuda" "$@" ;;
    --cuda) shift; exec .venv/bin/python -m pytest -m cuda tests/test_device.py tests/test_recorded.py "$@" ;;
esac
# One thread for each process; the tests of a file share what it has trained, so they stay together. Files in their own
# order: by the number of tests, as pytest-xdist would have them, those with few long tests come last, for one process.
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
