"""Tiny image and mask files, and configurations that open them."""

from pathlib import Path

import numpy as np
from PIL import Image

from utils.config import Config


def config_of(root: Path, dataset: str, *, n_labelled: int = 2, **keys) -> Config:
    """A configuration of a data set at ``root``; the keys override it."""
    return Config(
        **{
            "name": "USRN",
            "experim_name": "run",
            "dataset": dataset,
            "data_dir": str(root),
            "n_labeled_examples": n_labelled,
            "num_images_all": 8,
            "trainer": {"epochs": 1},
            **keys,
        }
    )


def write_image(path: Path, values=100, size: tuple[int, int] = (8, 8)) -> Path:
    """An RGB image of one colour, or of these values; ``size`` is (H, W)."""
    values = np.broadcast_to(np.asarray(values, np.uint8), (*size, 3)) if np.ndim(values) < 3 else values
    return _write(path, np.asarray(values, np.uint8))


def write_mask(path: Path, values=0, size: tuple[int, int] = (8, 8)) -> Path:
    """A single-channel mask of one index, or of these; 16 bit where they are uint16."""
    return _write(path, np.full(size, values, np.uint8) if np.ndim(values) == 0 else values)


def _write(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def ids(samples) -> list[str]:
    return [sample.id for sample in samples]
