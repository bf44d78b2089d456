#!/bin/sh
# Check style and types, then run the tests; the environment is made where it is missing. Other options are pytest's.
#   sh tests/run.sh --style     style and types only
#   sh tests/run.sh --slow      the slow tests as well
set -eu
cd "$(dirname "$0")/.."
sh init.sh

.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
case "${1:-}" in
    --style) exit 0 ;;
    --slow) shift; set -- -m "slow or not slow" "$@" ;;
esac
exec .venv/bin/python -m pytest "$@"
