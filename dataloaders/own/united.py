"""Several masks of one image, one object each, made into one."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.mask_file import MaskFile, read_mask_file
from utils.cores import cores
from utils.errors import UsageError
from utils.parallel import for_each


def unite_masks(series: dict[str, list[Path]], folder: Path) -> dict[str, Path]:
    """Write the union of each image's masks into a folder: image id → path.

    Raises
    ------
    UsageError
        Masks of one image are not binary, mark different values or colours or all of the image, or differ in size.
    """
    work = [(masks, folder / str(number)) for number, masks in enumerate(series.values())]
    return dict(zip(series, for_each(_unite, work, workers=cores(), label="united masks"), strict=True))


def _unite(work: tuple[list[Path], Path]) -> Path:
    paths, folder = work
    first = _read(paths[0])
    union = np.array(first.values)
    marked = _marked(paths[0], first)
    for path in paths[1:]:
        file = _read(path)
        if (file.values.shape, file.values.dtype) != (union.shape, union.dtype):
            raise UsageError(f"{paths[0]} and {path}: belong to one image, but differ in size or mode. Mend one.")
        mark = _marked(path, file)
        if marked is not None and mark is not None and mark != marked:
            raise UsageError(
                f"{paths[0]} and {path}: belong to one image, but mark different values or colours "
                f"({_in_words(*marked)} and {_in_words(*mark)}), so that they are not united. Make one mask of them, "
                "or move one away."
            )
        if marked is None:
            first, marked = file, mark  # an empty mask's palette may lack the colour
        union |= file.values
    if union.all():
        raise UsageError(
            f"{paths[0]}: the {len(paths)} masks of its image mark all of it together, as they do where 0 is the "
            "object and not the background. Turn their values round, or make one mask of them."
        )
    image = Image.fromarray(union.astype(bool) if first.mode == "1" else union)
    if first.palette is not None:
        image.putpalette(first.palette.tobytes())
    folder.mkdir()
    target = folder / f"{paths[0].stem}.png"
    image.save(target)
    return target


def _read(path: Path) -> MaskFile:
    file = read_mask_file(path)
    if file.alpha is not None:
        raise UsageError(f"{path}: is one of several masks of its image, and is not opaque. Save it without alpha.")
    return file


def _marked(path: Path, file: MaskFile) -> tuple[list[int], list[int]] | None:
    """The one value of a binary mask beside 0, and its colour where the file says one; None where there is none."""
    pixels = file.values.reshape(-1, 3 if file.values.ndim == 3 else 1)
    found = [value.tolist() for value in np.unique(pixels, axis=0) if value.any()]
    if len(found) > 1:
        raise UsageError(
            f"{path}: is one of several masks of its image, and holds {len(found)} values beside 0. Only binary "
            "masks are united: make one mask of them, or move the others away."
        )
    if not found:
        return None
    return found[0], [] if file.palette is None else file.palette[found[0][0]].tolist()


def _in_words(value: list[int], colour: list[int]) -> str:
    return " ".join(map(str, value)) + (f", the colour {' '.join(map(str, colour))}" if colour else "")
