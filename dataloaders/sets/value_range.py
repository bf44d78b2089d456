"""The range of a data set's 16-bit images, kept with the data: all runs and predictions scale them alike."""

import json
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from dataloaders.images import ValueRange
from dataloaders.sets.described import DESCRIPTION, read_description
from utils.errors import UsageError
from utils.files import write_whole
from utils.inputs import read_json

FILE = "value_range.json"
"""In a data set without a ``dataset.json``, which says the range itself."""
_CONTENTS = TypeAdapter(dict[Literal["value_range"], tuple[int, int]])


def stored_value_range(root: Path) -> ValueRange | None:
    """The least and the greatest value of the 16-bit images, as far as anybody has stored it."""
    if (root / DESCRIPTION).is_file():
        return read_description(root / DESCRIPTION).value_range
    path = root / FILE
    if not path.exists():
        return None
    way_out = 'It must read {"value_range": [LOW, HIGH]}. Mend it, or remove it.'
    low, high = read_json(path, _CONTENTS, way_out).get("value_range", (0, 0))
    if not low < high:
        raise UsageError(f"{path}: says no range. {way_out}")
    return low, high


def store_value_range(root: Path, value_range: ValueRange) -> Path:
    """Store the range of a data set's 16-bit images; the file that says it."""
    path = root / DESCRIPTION
    if path.is_file():
        described = read_description(path).model_copy(update={"value_range": value_range})
        write_whole(path, described.text())
    else:
        path = root / FILE
        write_whole(path, json.dumps({"value_range": list(value_range)}) + "\n")
    return path
