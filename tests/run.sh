#!/bin/sh
# Run the tests, making the environment where it is missing. --slow runs the slow ones as well; other options are pytest's.
set -eu
cd "$(dirname "$0")/.."
sh init.sh

if [ "${1:-}" = --slow ]; then
    shift
    set -- -m "slow or not slow" "$@"
fi
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
exec .venv/bin/python -m pytest "$@"
