#!/bin/sh
# Make .venv with what runs and tests need; does nothing where that is done. PYTHON names another interpreter.
#   sh init.sh               requirements.txt and requirements-dev.txt
#   sh init.sh --run-only    requirements.txt alone
# requirements.lock pins what these packages need in their turn.
set -eu
cd "$(dirname "$0")"

case "${1:-}" in
    "") wanted="requirements.txt requirements-dev.txt" ;;
    --run-only) wanted=requirements.txt ;;
    *) echo "error: sh init.sh, or sh init.sh --run-only for what a run needs" >&2; exit 2 ;;
esac

# .venv/installed/ keeps copies of the files that were installed.
installed() {
    for file in $wanted requirements.lock; do
        cmp -s "$file" ".venv/installed/$file" || return 1
    done
}
if installed; then
    exit 0
fi

for python in "${PYTHON:-}" python3 python3.12 python3.11 python3.10; do
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
        break
    fi
    python=
done
if [ -z "$python" ]; then
    echo "error: Python 3.10, 3.11 or 3.12 is needed; name it with PYTHON=/path/to/python3 sh init.sh" >&2
    exit 2
fi

echo "making the environment .venv (about 5 GB, once)"
rm -rf .venv/installed
if ! "$python" -m venv .venv; then
    echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
fi
options="-c requirements.lock"
for file in $wanted; do
    options="$options -r $file"
done
# shellcheck disable=SC2086 # a list of words
.venv/bin/python -m pip install --quiet --disable-pip-version-check $options
mkdir .venv/installed
cp $wanted requirements.lock .venv/installed/
