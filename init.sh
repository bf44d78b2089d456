#!/bin/sh
# Make .venv and install requirements.txt into it; does nothing where that is done. PYTHON names another interpreter.
set -eu
cd "$(dirname "$0")"

if cmp -s requirements.txt .venv/installed-requirements.txt; then
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
rm -f .venv/installed-requirements.txt
if ! "$python" -m venv .venv; then
    echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
cp requirements.txt .venv/installed-requirements.txt
