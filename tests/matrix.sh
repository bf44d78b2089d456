#!/bin/sh
# Run the tests in environments of Python 3.10 and 3.12, and of PyTorch 2.11: sh tests/run.sh --matrix [options of pytest]
# Interpreters are looked for as python3.10 and python3.12 on the PATH. An environment, .venv-<name>, takes about 5 GB
# and is removed after its tests; the exit code is 1 if anything failed. What could not be tried is said at the end.
set -u
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
said=
code=0

# try <name> <interpreter> <options of pip> -- <options of pytest>
try() {
    name=$1
    python=$2
    packages=$3
    shift 3
    if ! "$python" -c "" 2>/dev/null; then
        said="$said$name: not tried, $python is not on the PATH
"
        return
    fi
    echo "== $name"
    # shellcheck disable=SC2086 # a list of words
    if ! { "$python" -m venv --clear ".venv-$name" && ".venv-$name/bin/python" -m pip install --quiet $packages; }; then
        said="$said$name: not tried, its packages could not be installed
"
        code=1
    elif ".venv-$name/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"; then
        said="$said$name: passed
"
    else
        said="$said$name: FAILED
"
        code=1
    fi
    rm -rf ".venv-$name"
}

locked="-r requirements.txt -r requirements-dev.txt -c requirements.lock"
try python-3.10 python3.10 "$locked" "$@"
try python-3.12 python3.12 "$locked" "$@"
# The lock is of another PyTorch: only what the files of requirements name is pinned here.
other=$(mktemp)
sed "s/^torch==.*/torch==2.11.0/; s/^torchvision==.*/torchvision==0.26.0/" requirements.txt >"$other"
try torch-2.11 "${PYTHON:-python3}" "-r $other -r requirements-dev.txt" "$@"
rm -f "$other"
printf '\n%s' "$said"
exit $code
