"""Miniature folders of a user's images and masks."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (32, 48)


def scene(number: int, n_classes: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Class indices (H, W): vertical bands of all classes, moved by ``number``."""
    columns = (np.arange(size[1]) * n_classes // size[1] + number) % n_classes
    return np.broadcast_to(columns, size).astype(np.uint8)


def write_images(folder: Path, names: list[str], size: tuple[int, int] = SIZE, mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).convert(mode).save(path)
    return folder


def write_mask(path: Path, values: np.ndarray, colours: list[tuple[int, int, int]] | None = None, rgb: bool = False):
    """An index mask; with ``colours`` a palette mask, or with ``rgb`` as well a picture in these colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if rgb:
        Image.fromarray(np.array(colours, np.uint8)[values]).save(path)
        return
    image = Image.fromarray(values)
    if colours is not None:
        image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(path)


def names(count: int, suffix: str = ".png") -> list[str]:
    return [f"{number:03d}{suffix}" for number in range(count)]
