"""Several masks of one image, one object each, made into one."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.opening import opened
from utils.errors import UsageError
from utils.parallel import cores, for_each

_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "WEBP")
_OPAQUE_MODES = {"LA": "L", "PA": "P", "RGBA": "RGB"}


def unite_masks(series: dict[str, list[Path]], folder: Path) -> dict[str, Path]:
    """Write the union of each image's masks into a folder: image id → path.

    Raises
    ------
    UsageError
        Masks of one image are not binary, mark different values, or differ in size.
    """
    work = [(masks, folder / str(number)) for number, masks in enumerate(series.values())]
    return dict(zip(series, for_each(_unite, work, workers=cores(), label="united masks"), strict=True))


def _unite(work: tuple[list[Path], Path]) -> Path:
    masks, folder = work
    first = _read(masks[0])
    union = np.array(first)
    marked = _marked_value(masks[0], union)
    for path in masks[1:]:
        values = np.asarray(_read(path))
        if values.shape != union.shape:
            raise UsageError(f"{masks[0]} and {path}: belong to one image, but differ in size or mode. Mend one.")
        value = _marked_value(path, values)
        if marked is not None and value is not None and value != marked:
            raise UsageError(
                f"{masks[0]} and {path}: belong to one image, but mark different values ({marked} and {value}), so "
                "that they are not united. Make one mask of them, or move one away."
            )
        marked = value if marked is None else marked
        union |= values
    image = Image.fromarray(union)
    if first.mode == "P":
        image.putpalette(first.getpalette("RGB") or [])
    folder.mkdir()
    target = folder / f"{masks[0].stem}.png"
    image.save(target)
    return target


def _read(path: Path) -> Image.Image:
    with opened(path, path, "a mask", _FORMATS) as image:
        image.load()
    if image.mode in _OPAQUE_MODES:
        if np.asarray(image.getchannel("A")).min() < 255:
            raise UsageError(f"{path}: is one of several masks of its image, and is not opaque. Save it without alpha.")
        image = image.convert(_OPAQUE_MODES[image.mode])
    return image


def _marked_value(path: Path, values: np.ndarray) -> tuple[int, ...] | int | None:
    """The one value, or colour, of a binary mask beside 0; None where there is none."""
    found = np.unique(values.reshape(-1, *values.shape[2:]), axis=0)
    found = [value for value in found if value.any()]
    if len(found) > 1:
        raise UsageError(
            f"{path}: is one of several masks of its image, and holds {len(found)} values beside 0. Only binary "
            "masks are united: make one mask of them, or move the others away."
        )
    return (tuple(found[0].tolist()) if found[0].ndim else int(found[0])) if found else None
