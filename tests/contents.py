"""What a run's folder says, for comparison with another's."""

import hashlib
import json
import re
from pathlib import Path

import torch

# What depends on when and for how long something was done, not on what came out.
TIMES = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?|\b\d+(\.\d+)? s\b|, resumed at iteration [\d,]+")


def contents(folder: Path) -> dict[str, str]:
    """What every file below ``folder`` says, but for times, by its name; the log and TensorBoard's events apart."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    skipped = ("log.txt", "events.out")
    return {str(path.relative_to(folder)): _content(path) for path in files if not path.name.startswith(skipped)}


def _content(path: Path) -> str:
    if path.suffix == ".pth":
        checkpoint = torch.load(path, weights_only=True)
        checkpoint.get("resume", {}).pop("subclasses", None)  # a sum over subclasses.json, times included
        return _digest(_plain(checkpoint))
    if path.name == "stages.json":
        # Of each stage that it is done, and how it was configured: the files that it lists are compared themselves.
        return _digest({name: entry["config"] for name, entry in json.loads(path.read_text()).items()})
    if path.name == "subclasses.json":
        return _digest({**json.loads(path.read_text()), "seconds": None})
    if path.suffix in (".html", ".json", ".csv"):
        return _digest(TIMES.sub("", path.read_text()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else repr(value)


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
