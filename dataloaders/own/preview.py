"""A picture of a few masks over their images: what ``--init_data`` understood, for a person to look at."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from utils.files import write_whole
from utils.pictures import fitted

PREVIEW = "init_preview.png"
SHOWN = 3
_BOX = (480, 480)
_LINE = 16


def save_preview(
    path: Path, scenes: Sequence[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], palette: np.ndarray
) -> None:
    """Write each scene as a column: the image, and below it the same under half of its mask's colours; and a legend.

    Parameters
    ----------
    scenes
        Image, uint8 (H, W, 3), and class mask, uint8 (H, W), 255 for no class, which is white.
    palette
        uint8 (256, 3).
    """
    columns = [_column(image, palette[mask]) for image, mask in scenes]
    counts = np.sum([np.bincount(mask.ravel(), minlength=256) for _, mask in scenes], axis=0)
    legend = [(name, index) for index, name in enumerate(classes) if counts[index]]
    legend += [("(no class)", 255)] if counts[255] else []
    height = max(column.height for column in columns)
    picture = Image.new("RGB", (sum(column.width for column in columns), height + _LINE * (len(legend) + 1)), "white")
    left = 0
    for column in columns:
        picture.paste(column, (left, 0))
        left += column.width
    draw = ImageDraw.Draw(picture)
    for line, (name, index) in enumerate(legend):
        top = height + _LINE // 2 + _LINE * line
        draw.rectangle((4, top, 16, top + 12), tuple(palette[index].tolist()), "black")
        draw.text((22, top), name, "black")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_whole(path, buffer.getvalue())


def _column(image: np.ndarray, colours: np.ndarray) -> Image.Image:
    shown = Image.fromarray(image)
    over = Image.blend(shown, Image.fromarray(colours), 0.5)
    size = fitted(shown.size, _BOX, enlarge=True)
    column = Image.new("RGB", (size[0], 2 * size[1]))
    column.paste(shown.resize(size, Image.Resampling.BICUBIC), (0, 0))
    column.paste(over.resize(size, Image.Resampling.NEAREST), (0, size[1]))
    return column
