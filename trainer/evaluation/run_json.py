"""The JSON files of a run, each checked as it is read: a damaged one gives one message that says the way out."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, TypeAdapter, with_config
from typing_extensions import NotRequired, TypedDict  # pydantic asks for these below Python 3.12

from trainer.evaluation.label_quality import COUNTED_PIXELS
from utils.commands import command
from utils.errors import UsageError
from utils.inputs import parse_json, read_json, read_plain

_TYPES = ConfigDict(strict=True, extra="allow")
Time = Annotated[str, AfterValidator(lambda text: text if datetime.fromisoformat(text) else text)]


@with_config(_TYPES)
class Made(TypedDict):
    """When and on what a stage was done."""

    began: Time
    ended: Time
    python: str
    torch: str
    device: str
    processes: int
    resumed_at: NotRequired[int]
    not_improved: NotRequired[int]
    checkpoint: NotRequired[str]


@with_config(_TYPES)
class Stage(TypedDict):
    """A stage's entry in ``stages.json``: what it was made from, with which configuration, how, and what it wrote.

    ``source`` is the SHA-256 of the checkpoint that it used; ``made_from`` and ``outputs`` are fingerprints
    (``utils.fingerprint``) by part of the data and by file.
    """

    source: str
    config: dict[str, Any]
    made: Made
    made_from: NotRequired[dict[str, str]]
    outputs: NotRequired[dict[str, str]]


@with_config(_TYPES)
class LastModel(TypedDict):
    """Scores of the model at the end of the schedule, beside the best by validation."""

    mean_iou: float
    iou: dict[str, float | None]


@with_config(_TYPES)
class Results(TypedDict):
    """``results.json``: scores of ``--test``; null for the IoU of a class that does not occur."""

    mean_iou: float
    iou: dict[str, float | None]
    confusion: list[list[int]]
    checkpoint: str
    pixel_accuracy: NotRequired[float]
    mean_accuracy: NotRequired[float | None]
    frequency_weighted_iou: NotRequired[float | None]
    mean_iou_by_frequency: NotRequired[dict[str, float | None]]
    boundary_iou: NotRequired[float | None]
    boundary_iou_by_class: NotRequired[dict[str, float | None]]
    expected_calibration_error: NotRequired[float | None]
    calibration: NotRequired[dict[str, list[float]]]
    last: NotRequired[LastModel]


@with_config(_TYPES)
class Entry(TypedDict):
    """A line of ``history.jsonl``; beside these the losses, each a number under the name of the training step."""

    iteration: int
    epoch: NotRequired[int]
    lr: NotRequired[dict[str, float]]
    val_mean_iou: NotRequired[float]
    train_mean_iou: NotRequired[float | None]
    val_iou: NotRequired[list[float]]
    label_shares: NotRequired[list[float]]
    pseudo_label_shares: NotRequired[list[float]]
    pseudo_label_quality: NotRequired[dict[str, list[int]]]


def _only_numbers(entry: Entry) -> Entry:
    for name, value in entry.items():
        if name not in Entry.__annotations__ and not isinstance(value, int | float):
            raise ValueError(f"{name} is no number")
    quality = entry.get("pseudo_label_quality")
    if quality is not None and (set(quality) != set(COUNTED_PIXELS) or len(set(map(len, quality.values()))) > 1):
        raise ValueError("pseudo_label_quality does not have every count of every class")
    return entry


def _square(results: Results) -> Results:
    if [len(row) for row in results["confusion"]] != len(results["iou"]) * [len(results["iou"])]:
        raise ValueError("its confusion matrix is not of its classes")
    return results


_STAGES = TypeAdapter(dict[str, Stage | None])
_RESULTS: TypeAdapter[Results] = TypeAdapter(Annotated[Results, AfterValidator(_square)])
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, AfterValidator(_only_numbers)])


def read_stages(path: Path) -> dict[str, Stage | None]:
    """``stages.json``: the stages by name, None for one that was begun and not done; empty without the file."""
    if not path.exists():
        return {}
    way_out = "Move it away, and give the run's commands again with --resume auto: stages are then done again."
    return read_json(path, _STAGES, way_out)


def read_results(path: Path) -> Results:
    """``results.json``."""
    return read_json(path, _RESULTS, evaluate_again(path.parent))


def evaluate_again(run_dir: Path) -> str:
    """What to do where a file that ``--test`` writes is missing or damaged."""
    return f"Evaluate that run again: {command('--test True --force', run_dir)}"


def read_history(path: Path) -> list[Entry]:
    """``history.jsonl``, a line an entry; empty where the file is missing.

    The last line is dropped where it is not whole: a process that is killed leaves it so.
    """
    if not path.exists():
        return []
    try:
        *lines, last = read_plain(path).split(b"\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Move it away; the curves begin anew.") from None
    del last  # "" behind the last line's end
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            parse_json(line, _ENTRY, f"{path}, line {number}", "Take this line out of the file.")
        except UsageError:
            if number < len(lines):
                raise
        else:
            entries.append(json.loads(line))  # in the order of the file, so that it can be written again as it was
    return entries
