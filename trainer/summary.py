"""One picture of what two runs predict, side by side."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.description import SegmentationData
from dataloaders.reading import read_mask, read_pair
from utils.checkpoint import write_atomically

ROWS = 8
MAX_WIDTH = 320
GAP = 4


def save_comparison(path: Path, data: SegmentationData, predictions: dict[str, Path], ignore_index: int) -> None:
    """Write a grid: a row an image; image, target and each run's prediction side by side.

    Shown are the validation images with the most classes, where the rare ones are.
    """
    settings = len(data.classes), ignore_index, data.palette
    classes = {sample.id: len(np.unique(read_mask(sample.label, *settings))) for sample in data.validation}
    shown = sorted(data.validation, key=lambda sample: (-classes[sample.id], sample.id))[:ROWS]
    rows = [_row(*read_pair(sample, *settings), [folder / f"{sample.id}.png" for folder in predictions.values()],
                 data.palette) for sample in shown]  # fmt: skip
    width, height = max(row.width for row in rows), sum(row.height + GAP for row in rows) - GAP
    grid = Image.new("RGB", (width, height), "white")
    top = 0
    for row in rows:
        grid.paste(row, (0, top))
        top += row.height + GAP
    write_atomically(path, lambda file: grid.save(file, "PNG"))


def _row(image: np.ndarray, target: np.ndarray, predictions: list[Path], palette: np.ndarray) -> Image.Image:
    masks = [target, *map(_indices, predictions)]
    cells = [Image.fromarray(image), *(Image.fromarray(palette[mask]) for mask in masks)]
    scale = min(1, MAX_WIDTH / cells[0].width)
    width, height = round(cells[0].width * scale), round(cells[0].height * scale)
    row = Image.new("RGB", (len(cells) * (width + GAP) - GAP, height), "white")
    for index, cell in enumerate(cells):
        row.paste(cell.resize((width, height), Image.NEAREST if index else Image.BICUBIC), (index * (width + GAP), 0))
    return row


def _indices(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        return np.asarray(mask)
