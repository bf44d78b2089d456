"""Which mask belongs to which image: by their paths below the two folders, without suffix."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataloaders.sets.description import IMAGE_SUFFIXES
from utils.errors import UsageError
from utils.inputs import plain_text

MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".gif")
MASK_ENDING = re.compile(r"[-_](masks?|gt|labels?|seg|segmentation)$", re.IGNORECASE)
SHOWN = 5  # files that a message names before it only counts


@dataclass(frozen=True)
class Pairs:
    """What the two folders hold.

    Attributes
    ----------
    images
        Image id → path. The id is the path below the images folder without suffix, ``/`` written as ``__``.
    masks
        Image id → path of its mask, for the images that have one.
    strays
        Masks without an image.
    """

    images: dict[str, Path]
    masks: dict[str, Path]
    strays: list[Path]


def find_pairs(images_folder: Path, masks_folder: Path) -> Pairs:
    """Images and their masks; one folder may lie in the other, or be the same where the masks' names end in ``_mask``.

    Raises
    ------
    UsageError
        A folder, images or masks are missing, or two files claim one name.
    """
    for option, folder in (("--init_data", images_folder), ("--masks", masks_folder)):
        if not folder.is_dir():
            raise UsageError(f"{option} {folder}: there is no such folder.")
    images_folder, masks_folder = images_folder.resolve(), masks_folder.resolve()
    same = images_folder == masks_folder
    image_files = list(_files(images_folder, IMAGE_SUFFIXES, None if same else masks_folder))
    mask_files = list(_files(masks_folder, MASK_SUFFIXES, None if same else images_folder))
    if same:
        image_files = [path for path in image_files if not MASK_ENDING.search(path.stem)]
        mask_files = [path for path in mask_files if MASK_ENDING.search(path.stem)]
    if not image_files:
        raise UsageError(f"--init_data {images_folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    if not mask_files:
        ending = " whose name ends in _mask, _gt or _label" if same else ""
        raise UsageError(f"--masks {masks_folder}: holds no mask{ending} ({', '.join(MASK_SUFFIXES)}).")

    for folder, files in ((images_folder, image_files), (masks_folder, mask_files)):
        _check_paths(folder, files)
    images = _unique((_id(path, images_folder), path) for path in image_files)
    claims, strays = [], []
    for path in mask_files:
        id_ = _id(path, masks_folder)
        id_ = id_ if id_ in images else MASK_ENDING.sub("", id_)
        if id_ in images:
            claims.append((id_, path))
        else:
            strays.append(path)
    masks = _unique(claims)
    if not masks:
        raise UsageError(
            f"--masks {masks_folder}: none of its {len(mask_files)} masks has the name of an image of {images_folder}; "
            f"{strays[0].relative_to(masks_folder)}, for one, would be the mask of "
            f"{strays[0].relative_to(masks_folder).with_suffix('.*')}."
        )
    return Pairs(images, masks, strays)


def _check_paths(folder: Path, files: list[Path]) -> None:
    """Refuse names that a description in UTF-8 cannot hold: files of systems that wrote Latin-1, for one."""
    bad = []
    for path in (folder, *files):
        try:
            plain_text(str(path))
        except ValueError as error:
            bad.append(f"{str(path)!r} ({error})")
    if bad:
        raise UsageError(
            f"{folder}: {len(bad)} names cannot be used: {some(bad)}. Rename the files; names in Latin-1 become UTF-8 "
            "by convmv -r -f latin1 -t utf8 --notest and the folder."
        )


def some(names: list) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more


def _files(folder: Path, suffixes: tuple[str, ...], left_out: Path | None) -> Iterator[Path]:
    """The pictures below a folder, in order; hidden files and the folder ``left_out`` are passed over."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and Path(place, name) != left_out)
        for name in sorted(names):
            if name[0] != "." and Path(name).suffix.lower() in suffixes:
                yield Path(place, name)


def _id(path: Path, folder: Path) -> str:
    return "__".join(path.relative_to(folder).with_suffix("").parts)


def _unique(found) -> dict[str, Path]:
    by_id: dict[str, Path] = {}
    for id_, path in found:
        if id_ in by_id:
            raise UsageError(f"{by_id[id_]} and {path} stand for the same image, {id_}. Move or rename one of them.")
        by_id[id_] = path
    return by_id
