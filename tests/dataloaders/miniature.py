"""Tiny image and mask files, and configurations that open them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataloaders.geometry import Geometry
from dataloaders.sets.description import Sample, SegmentationData
from dataloaders.streams import LabelledStream
from utils.config import Config
from utils.palette import voc_palette

GEOMETRY = Geometry(crop_size=16, base_size=20, scales=(0.5, 2.0), flip=True, rotate=False, blur=False)


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


def looked_up(data: SegmentationData) -> SegmentationData:
    """The data set, when all its samples are looked up and checked."""
    for part in (data.labelled, data.unlabelled, data.validation):
        len(part)
    return data


def data_of(
    labelled: Sequence[Sample] = (),
    *,
    unlabelled: Sequence[Sample] = (),
    validation: Sequence[Sample] = (),
    classes: Sequence[str] = ("ground", "tree", "house"),
    palette: np.ndarray | None = None,
    ignore_index: int = 255,
) -> SegmentationData:
    """An opened data set of these samples."""
    return SegmentationData(
        tuple(classes),
        voc_palette() if palette is None else palette,
        tuple(labelled),
        tuple(unlabelled),
        tuple(validation),
        ignore_index=ignore_index,
    )


def labelled_stream(samples: Sequence[Sample], geometry: Geometry = GEOMETRY, seed: int = 0, **more) -> LabelledStream:
    """A stream of the three classes of ``data_of``."""
    return LabelledStream(data_of(samples), geometry, seed=seed, **more)


def same_items(one: dict, other: dict) -> bool:
    """Whether two items or batches of a stream hold the same."""
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) if isinstance(one[name], torch.Tensor) else one[name] == other[name]
        for name in one
    )


def write_image(path: Path, values=100, size: tuple[int, int] = (8, 8)) -> Path:
    """An RGB image of one colour, or of these values; ``size`` is (H, W)."""
    values = np.broadcast_to(np.asarray(values, np.uint8), (*size, 3)) if np.ndim(values) < 3 else values
    return _write(path, np.asarray(values, np.uint8))


def write_mask(path: Path, values=0, size: tuple[int, int] = (8, 8)) -> Path:
    """A single-channel mask of one index, or of these; 16 bit where they are uint16."""
    return _write(path, np.full(size, values, np.uint8) if np.ndim(values) == 0 else values)


def save_turned(path: Path, size: tuple[int, int], orientation: int = 6) -> Path:
    """An image of ``size`` (H, W) as stored, with an EXIF orientation; 6: to be turned by 90 degrees."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path, exif=tags)
    return path


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
