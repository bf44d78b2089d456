#!/bin/sh
# The four stages of one run, its evaluation and the table: sh main.sh <run> [options of main.py for every stage]
#   sh main.sh demo
#   sh main.sh voc_1over32
#   sh main.sh mine --minutes 60
#   sh main.sh camvid_1over8 --set data_dir=/data/camvid
# Finished stages are not repeated; --force repeats them all. RUN_PYTHON=python3 uses an environment of your own.
set -eu
cd "$(dirname "$0")"

run=${1:-}
if [ -z "$run" ] || [ ! -f "configs/${run}_baseline.json" ] || [ ! -f "configs/${run}_usrn.json" ]; then
    echo "error: sh main.sh <run> needs configs/<run>_baseline.json and configs/<run>_usrn.json; runs here:" >&2
    ls configs | sed -n 's/_usrn\.json$//p' | sed 's/^/  /' >&2
    exit 2
fi
shift

if [ -z "${RUN_PYTHON:-}" ]; then
    sh init.sh --run-only
    RUN_PYTHON=.venv/bin/python
fi

# A request to stop is passed on to the stage at work, which puts its work down; no other stage begins after it.
# Exit code 75: stopped, and the same command goes on; 0: all is done.
resumable=75
stopped=
child=
stop() {
    stopped=1
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :
}
trap stop HUP INT TERM

end() {
    [ "$1" -ne "$resumable" ] || echo "stopped; the same command goes on"
    exit "$1"
}

stage() {
    title=$1
    shift
    [ -z "$stopped" ] || end "$resumable"
    echo
    echo "== $title"
    "$RUN_PYTHON" main.py "$@" &
    child=$!
    code=0
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do # the wait was interrupted
        code=0
        wait "$child" || code=$?
    done
    child=
    # A stage that was stopped before it could hear of it ends by the signal.
    [ -z "$stopped" ] || [ "$code" -le 128 ] || code=$resumable
    [ "$code" -eq 0 ] || end "$code"
}

stage "1/4 supervised baseline" --config "configs/${run}_baseline.json" --resume auto "$@"
stage "2/4 features" --save_feature True --config "configs/${run}_baseline.json" "$@"
stage "3/4 balanced subclasses" --clustering True --config "configs/${run}_baseline.json" "$@"
stage "4/4 USRN" --config "configs/${run}_usrn.json" --resume auto "$@"
stage "evaluation of the baseline" --test True --config "configs/${run}_baseline.json" "$@"
stage "evaluation of USRN" --test True --config "configs/${run}_usrn.json" "$@"
stage "summary" --summary True --config "configs/${run}_usrn.json" "$@"
