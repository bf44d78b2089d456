"""Cityscapes, flattened and with trainIds."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataloaders.mask_file import IGNORE_INDEX
from dataloaders.prepare.archives import unpack
from dataloaders.prepare.frame import check_or_fill
from dataloaders.prepare.pictures import (
    BadFile,
    check_picture,
    is_in_order,
    mask_png,
    picture_size,
    read_ids,
    uncompressed_png,
)
from dataloaders.prepare.report import Outcome, Report
from dataloaders.sets.cityscapes import CLASSES
from utils.errors import UsageError
from utils.files import link_or_copy, write_whole

EXPECTED = {"train": 2975, "val": 500}
ARCHIVES = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")

LABELS = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car",
    "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""The public label table: the names of the labelIds 0 to 33. A label that is a class has its trainId, any
other 255. The licence plate, -1, is 255 in 8 bits and stays that."""
TRAIN_IDS = np.full(256, IGNORE_INDEX, np.uint8)
TRAIN_IDS[: len(LABELS)] = [CLASSES.index(name) if name in CLASSES else IGNORE_INDEX for name in LABELS]

_LABEL_IDS_ALLOWED = np.isin(np.arange(256), [*range(len(LABELS)), 255])
_TRAIN_IDS_ALLOWED = np.isin(np.arange(256), [*range(len(CLASSES)), IGNORE_INDEX])
_IMAGE, _LABEL, _TRAIN = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
_NAME = r"[^/.][^/]*"
_MEMBER = re.compile(
    rf"(?:\./)?(leftImg8bit/(?:train|val)/{_NAME}/{_NAME}_leftImg8bit\.png"
    rf"|gtFine/(?:train|val)/{_NAME}/{_NAME}_gtFine_label(?:Train)?Ids\.png)"
)


@dataclass(frozen=True)
class _Job:
    """One image and its mask: the sources that there are, and the places where they go."""

    split: str
    image: Path | None
    image_target: Path
    train_ids: Path | None
    label_ids: Path | None
    target: Path
    check: bool
    uncompressed: bool = False


def prepare_cityscapes(
    root: Path,
    sources: Sequence[Path] = (),
    *,
    check: bool = False,
    uncompressed: bool | None = False,
    workers: int = 1,
) -> Report:
    """Lay out Cityscapes below ``root`` (method.md, section 2).

    The training images go to ``images/train`` and ``segmentation/train``, the validation images stay in (or
    are linked to) ``leftImg8bit/val`` and ``gtFine/val``. labelIds become labelTrainIds where those are
    missing.

    Parameters
    ----------
    root
        Folder of the prepared data set.
    sources
        Folders that hold the archives or the extracted trees, beside ``root`` itself.
    check
        Change nothing; read every file.
    uncompressed
        Store the training images and masks anew, without compression: 25 GB more, read several times faster. None
        does so where that leaves as much of the disk free again.
    workers
        Number of processes.

    Raises
    ------
    UsageError
        There is no Cityscapes, an archive is refused, or a file cannot be written.
    """
    for source in sources:
        if not source.exists():
            raise UsageError(f"{source}: this source does not exist.")
    folders = [root, *(source if source.is_dir() else source.parent for source in sources)]
    report = Report("Cityscapes", root, CLASSES, EXPECTED, checked_only=check)
    archives = _archives(folders)
    if not check and not archives and not _jobs(root, folders, check=False):
        raise UsageError(
            f"Cityscapes is not in {', nor in '.join(map(str, folders))}: looked for {' and '.join(ARCHIVES)} "
            f"and for leftImg8bit/train/<city>/*{_IMAGE}. Name its folder with --source."
        )

    def bring_in() -> None:
        for archive in archives:
            unpack(archive, lambda name: _place(root, name))

    def jobs() -> list[_Job]:
        found = _jobs(root, folders, check=check)
        if check:
            return found
        plain = _has_room(root, found, report) if uncompressed is None else uncompressed
        return [replace(job, uncompressed=plain and job.split == "train") for job in found]

    return check_or_fill(
        report,
        root,
        wanted=[root / name for name in ("images/train", "segmentation/train", "leftImg8bit/val", "gtFine/val")],
        swept=[root / name for name in ("images", "segmentation", "leftImg8bit", "gtFine")],
        bring_in=bring_in,
        jobs=jobs,
        work=_work,
        workers=workers,
    )


def _archives(folders: Sequence[Path]) -> list[Path]:
    """The archives to unpack: those whose tree does not lie beside them, extracted elsewhere than the root."""
    return [
        folder / name
        for folder in folders
        for name in ARCHIVES
        if (folder / name).is_file()
        and (folder.resolve() == folders[0].resolve() or not (folder / name.partition("_")[0]).is_dir())
    ]


def _place(root: Path, name: str) -> Path | None:
    match = _MEMBER.fullmatch(name)
    return root / match[1] if match else None


def _has_room(root: Path, jobs: Sequence[_Job], report: Report) -> bool:
    """Whether the disk has room for twice the training files without compression; a warning where it has not."""
    train = [job for job in jobs if job.split == "train"]
    try:
        height, width = picture_size(train[0].image or train[0].image_target)
    except (BadFile, IndexError):
        return False  # the work on it will say why
    plain = height * width * 3
    compressed = [job for job in train if not job.image_target.is_file() or job.image_target.stat().st_size < plain]
    needed, free = len(compressed) * height * width * 4, shutil.disk_usage(root).free
    if free < 2 * needed:
        report.warnings.append(
            f"the training files stay compressed and are read several times slower: {needed / 1e9:.0f} GB more are "
            f"needed, {free / 1e9:.0f} GB are free. --uncompressed stores them anew all the same"
        )
    return free >= 2 * needed


def _jobs(root: Path, folders: Sequence[Path], *, check: bool) -> list[_Job]:
    """The work on every image of the two splits, wherever it was found."""
    jobs = []
    for split in EXPECTED:
        images = _find(folders, "leftImg8bit", split, _IMAGE)
        label_ids = _find(folders, "gtFine", split, _LABEL)
        train_ids = _find(folders, "gtFine", split, _TRAIN)
        flat = _flat(root / "images" / "train", _IMAGE) if split == "train" else {}
        flat_masks = _flat(root / "segmentation" / "train", _TRAIN) if split == "train" else {}
        for stem in sorted({*images, *flat, *flat_masks}):
            city = images[stem].parent.name if stem in images else ""
            image_folder = root / ("images/train" if split == "train" else f"leftImg8bit/val/{city}")
            mask_folder = root / ("segmentation/train" if split == "train" else f"gtFine/val/{city}")
            jobs.append(
                _Job(
                    split=split,
                    image=images.get(stem),
                    image_target=image_folder / f"{stem}{_IMAGE}",
                    train_ids=train_ids.get(stem),
                    label_ids=label_ids.get(stem),
                    target=mask_folder / f"{stem}{_TRAIN}",
                    check=check,
                )
            )
    return jobs


def _find(folders: Sequence[Path], kind: str, split: str, ending: str) -> dict[str, Path]:
    """Files of one kind by city and frame, of the first folder that has them."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / kind / split).glob(f"*/*{ending}")):
            found.setdefault(path.name.removesuffix(ending), path)
    return found


def _flat(folder: Path, ending: str) -> dict[str, Path]:
    return {path.name.removesuffix(ending): path for path in folder.glob(f"*{ending}")}


def _work(job: _Job) -> Outcome:
    outcome = Outcome(job.split)
    try:
        size = _image(job, outcome)
    except (BadFile, OSError) as error:
        outcome.problems.append(f"{job.image_target if job.check else job.image or job.image_target}: {error}")
        return outcome
    try:
        ids = read_ids(job.target, _TRAIN_IDS_ALLOWED, size)
        outcome.actions.append("masks kept")
    except BadFile as error:
        ids = None if job.check else _mask(job, size, outcome)
        if ids is None and not outcome.problems:
            outcome.problems.append(f"{job.target}: {error}")
    if ids is not None:
        outcome.pixels = np.bincount(ids.ravel(), minlength=256)
        if job.uncompressed:
            _uncompress(job, outcome)
    return outcome


def _uncompress(job: _Job, outcome: Outcome) -> None:
    for path, kind in ((job.image_target, "images"), (job.target, "masks")):
        try:
            plain = uncompressed_png(path)
        except BadFile as error:
            outcome.problems.append(f"{path}: {error}")
            continue
        if plain is not None:
            write_whole(path, plain, flush=False)
            outcome.actions.append(f"{kind} uncompressed")


def _image(job: _Job, outcome: Outcome) -> tuple[int, int]:
    """Bring the image to its place; its height and width."""
    if job.check:
        return check_picture(job.image_target)
    if job.image is None or is_in_order(job.image_target, job.image.stat().st_size):
        outcome.actions.append("images kept")
        return picture_size(job.image_target)
    size = picture_size(job.image)
    outcome.actions.append(f"images {link_or_copy(job.image, job.image_target)}")
    return size


def _mask(job: _Job, size: tuple[int, int], outcome: Outcome) -> np.ndarray | None:
    """Bring the mask to its place, from labelTrainIds where they are good, else from labelIds."""
    if job.train_ids:
        try:
            ids = read_ids(job.train_ids, _TRAIN_IDS_ALLOWED, size)
            outcome.actions.append(f"masks {link_or_copy(job.train_ids, job.target)}")
            return ids
        except (BadFile, OSError) as error:
            if not job.label_ids:
                outcome.problems.append(f"{job.train_ids}: {error}")
    if not job.label_ids:
        return None
    try:
        ids = TRAIN_IDS[read_ids(job.label_ids, _LABEL_IDS_ALLOWED, size)]
    except BadFile as error:
        outcome.problems.append(f"{job.label_ids}: {error}")
        return None
    write_whole(job.target, mask_png(ids), flush=False)
    outcome.actions.append("masks written")
    return ids
