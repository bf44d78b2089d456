import json

import pytest

from trainer.evaluation.image_scores import read_image_scores
from trainer.evaluation.run_json import read_history, read_results, read_stages
from utils.errors import UsageError

MADE = {"began": "2026-01-01T00:00:00", "ended": "2026-01-01T00:10:00", "python": "3.11", "torch": "2.12"}
MADE |= {"device": "CPU", "processes": 1}
STAGES = {"train": {"source": "", "config": {}, "made": MADE}}
RESULTS = {"mean_iou": 0.5, "iou": {"a": 0.5, "b": None}, "confusion": [[1, 1], [0, 0]], "checkpoint": "x.pth"}
ENTRY = {"iteration": 2, "total": 1.5, "lr": {"heads": 0.1}}
SCORES = "image,mean_iou\na,0.5\n"
FILES = {
    "stages.json": (read_stages, json.dumps(STAGES)),
    "results.json": (read_results, json.dumps(RESULTS)),
    "history.jsonl": (read_history, 2 * (json.dumps(ENTRY) + "\n")),
    "images.csv": (read_image_scores, SCORES),
}
WAYS_OUT = {
    "stages.json": "Move it away",
    "results.json": "python3 main.py --test True --force --config",
    "history.jsonl": "Take this line out|Move it away",
    "images.csv": "python3 main.py --test True --force --config",
}


@pytest.mark.parametrize("name", FILES)
def test_whole_file_is_read(tmp_path, name):
    read, text = FILES[name]
    (tmp_path / name).write_text(text)
    assert read(tmp_path / name)


JUNK = {
    "empty": b"",
    "blank": b"\n\n",
    "binary": b"\xff\xfe\0",
    "number": b"7",
    "list": b"[1, 2]",
    "object": b'{"a": 1}',
}
JUNK |= {"deep": b"[" * 100_000, "folder": None}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", FILES)
def test_junk_is_named_with_the_way_out(tmp_path, name, junk):
    read, text = FILES[name]
    if JUNK[junk] is None:
        (tmp_path / name).mkdir()
    else:
        whole = b"\n" + text.encode() if name == "history.jsonl" else b""
        (tmp_path / name).write_bytes(JUNK[junk] + whole)
    with pytest.raises(UsageError, match=rf"(?s){name}.*({WAYS_OUT[name]})"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("stages.json", ("train", "source"), 3),
        ("stages.json", ("train", "config"), None),
        ("stages.json", ("train", "made", "began"), "yesterday"),
        ("results.json", ("iou", "a"), "0.5"),
        ("results.json", ("confusion",), [[1, 1]]),
        ("history.jsonl", ("iteration",), "2"),
        ("history.jsonl", ("total",), [1]),
    ],
)
def test_value_of_another_type_is_named_by_its_key(tmp_path, name, place, value):
    read, text = FILES[name]
    contents = json.loads(text.splitlines()[0])
    section = contents
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    (tmp_path / name).write_text(json.dumps(contents) + "\n" + (text if name == "history.jsonl" else ""))
    with pytest.raises(UsageError, match=f"{name}.*{place[-1]}"):
        read(tmp_path / name)


@pytest.mark.parametrize("tail", ["", '{"iteration": 3, "to', '{"iteration": 3, "to\n', "\0\0\0\n"], ids=repr)
def test_last_line_of_a_history_that_a_crash_has_cut_off_is_dropped(tmp_path, tail):
    (tmp_path / "history.jsonl").write_text(2 * (json.dumps(ENTRY) + "\n") + tail)
    assert read_history(tmp_path / "history.jsonl") == [ENTRY, ENTRY]


def test_damaged_line_in_the_middle_of_a_history_is_named(tmp_path):
    (tmp_path / "history.jsonl").write_text(f"{json.dumps(ENTRY)}\n{{{{\n{json.dumps(ENTRY)}\n")
    with pytest.raises(UsageError, match=r"history.jsonl, line 2: is damaged"):
        read_history(tmp_path / "history.jsonl")
