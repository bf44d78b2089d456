"""Which mask belongs to which image: by their names below the two folders."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dataloaders.own.names import COUNTER, MASK_ENDING, match_names
from dataloaders.sets.description import IMAGE_SUFFIXES
from utils.errors import UsageError, some
from utils.inputs import plain_text

MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".gif")
_EXPORTED = re.compile(r"SegmentationClass(PNG)?")  # by CVAT and labelme, beside folders of other pictures
_JPEG = (".jpg", ".jpeg")


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
    series
        Image id → all of its masks, for the images that have several; ``masks`` has the first.
    """

    images: dict[str, Path]
    masks: dict[str, Path]
    strays: list[Path]
    series: dict[str, list[Path]] = field(default_factory=dict)


def find_pairs(images_folder: Path, masks_folder: Path) -> Pairs:
    """Images and their masks; one folder may lie in the other, or be the same where the names tell them apart.

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
    if same:
        folder_each = _folder_each(list(_files(images_folder, MASK_SUFFIXES, None)))
        if folder_each:
            _check_paths(images_folder, [file for image, masks in folder_each.items() for file in (image, *masks)])
            return _pairs(_unique((_id(path, images_folder), path) for path in folder_each), folder_each, [])
    image_files = list(_files(images_folder, IMAGE_SUFFIXES, None if same else masks_folder))
    mask_files = list(_files(masks_folder, MASK_SUFFIXES, None if same else images_folder))
    if same:
        mask_files = _masks_among(mask_files)
        image_files = [path for path in image_files if path not in set(mask_files)]
    exported = [path for path in mask_files if any(map(_EXPORTED.fullmatch, path.relative_to(masks_folder).parts))]
    mask_files = exported or mask_files
    if not image_files:
        raise UsageError(f"--init_data {images_folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    if not mask_files:
        ending = " that its name tells from the images (a_mask.png beside a.jpg)" if same else ""
        raise UsageError(f"--masks {masks_folder}: holds no mask{ending} ({', '.join(MASK_SUFFIXES)}).")

    for folder, files in ((images_folder, image_files), (masks_folder, mask_files)):
        _check_paths(folder, files)
    images = _unique((_id(path, images_folder), path) for path in image_files)
    ids = list(images)
    masks_of = match_names(
        [PurePosixPath(path.relative_to(images_folder).as_posix()) for path in images.values()],
        [PurePosixPath(path.relative_to(masks_folder).as_posix()) for path in mask_files],
    )
    if not masks_of:
        shown = [
            " and ".join(str(path.relative_to(folder)) for path in files[:2])
            for folder, files in ((images_folder, image_files), (masks_folder, mask_files))
        ]
        raise UsageError(
            f"--masks {masks_folder}: none of its {len(mask_files)} masks has the name of an image of {images_folder}. "
            f"The images are called {shown[0]}, the masks {shown[1]}. Name the masks after the images."
        )
    found = {images[ids[image]]: [mask_files[at] for at in claims] for image, claims in masks_of.items()}
    paired = {path for claims in found.values() for path in claims}
    return _pairs(images, found, [path for path in mask_files if path not in paired])


def _pairs(images: dict[str, Path], masks_of: dict[Path, list[Path]], strays: list[Path]) -> Pairs:
    series = {id_: masks_of[path] for id_, path in images.items() if masks_of.get(path)}
    return Pairs(
        images,
        {id_: found[0] for id_, found in series.items()},
        strays,
        {id_: found for id_, found in series.items() if len(found) > 1},
    )


def _folder_each(files: list[Path]) -> dict[Path, list[Path]]:
    """Image → masks, where every image has a folder of its own: ``x/images`` with it alone, and its ``x/masks``.

    So do data sets of instances (DSB 2018): a mask an object, under any name. Empty for any other layout.

    Raises
    ------
    UsageError
        The names of masks recur in many of the folders: each is a class, and their union would be none.
    """
    images: dict[Path, list[Path]] = {}
    masks: dict[Path, list[Path]] = {}
    for path in files:
        kind = {"images": images, "masks": masks}.get(path.parent.name.casefold())
        if kind is None:
            return {}
        kind.setdefault(path.parent.parent, []).append(path)
    if (
        len(images) < 2
        or not masks
        or not masks.keys() <= images.keys()
        or any(len(found) > 1 for found in images.values())
    ):
        return {}
    kinds = [{COUNTER.sub("", path.stem) for path in found} - {""} for found in masks.values()]
    folders = Counter(kind for found in kinds for kind in found)
    recurring = [kind for kind, count in folders.items() if count >= max(2, len(kinds) / 5)]
    if len(recurring) > 1:
        raise UsageError(
            f"--masks {next(iter(masks))}: its folder masks holds several files whose names recur in other folders "
            f"({some(sorted(recurring))}). Is each a class? Only masks of objects of one class are united: make one "
            "mask of each image, whose values are the class ids."
        )
    return {found[0]: masks.get(folder, []) for folder, found in images.items()}


def _masks_among(files: list[Path]) -> list[Path]:
    """The masks of a folder that holds the images as well.

    Their names end like masks' names; or are those of other files and something more; or they are the files beside
    JPEGs, which masks never are.
    """
    masks = [path for path in files if MASK_ENDING.search(path.stem)]
    if masks:
        return masks
    stems = {path.with_suffix("") for path in files}
    more: Counter = Counter()
    for path in files:
        for at in (found.start() for found in re.finditer(r"[-_. ]", path.stem)):
            if path.with_name(path.stem[:at]) in stems and not path.stem[at + 1 :].isdigit():
                more[path.stem[at:]] += 1
    if more:
        ending = more.most_common(1)[0][0]
        return [
            path
            for path in files
            if path.stem.endswith(ending) and path.with_name(path.stem.removesuffix(ending)) in stems
        ]
    others = [path for path in files if path.suffix.lower() not in _JPEG]
    return others if len(others) < len(files) else []


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
