"""PASCAL VOC 2012 and SBD made into the augmented training set."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloaders.mask_file import IGNORE_INDEX
from dataloaders.prepare import voc_sources
from dataloaders.prepare.frame import check_or_fill
from dataloaders.prepare.matlab import read_sbd_mask
from dataloaders.prepare.pictures import (
    BadFile,
    check_ids,
    check_picture,
    mask_png,
    picture_size,
    read_ids,
)
from dataloaders.prepare.report import Outcome, Report
from dataloaders.sets.voc import CLASSES
from utils.errors import UsageError
from utils.files import write_whole

EXPECTED = {"train": 10582, "val": 1449}
_ALLOWED = np.isin(np.arange(256), [*range(len(CLASSES)), IGNORE_INDEX])
_VAL = "ImageSets/Segmentation/val.txt"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class _Job:
    """One image: where it is, where its mask goes, and what that may be made of."""

    split: str
    image: Path
    target: Path
    voc_mask: Path | None
    sbd_mask: Path | None
    check: bool


def prepare_voc(
    root: Path, sources: Sequence[Path] = (), *, download: bool = False, check: bool = False, workers: int = 1
) -> Report:
    """Make ``SegmentationClassAug`` below ``root/VOCdevkit/VOC2012`` (method.md, section 2).

    Parameters
    ----------
    root
        Folder of the prepared data set.
    sources
        Folders that hold the archives or the extracted trees, beside ``root`` itself.
    download
        First fetch what is not there.
    check
        Change nothing; read every file.
    workers
        Number of processes.

    Raises
    ------
    UsageError
        There is no VOC 2012, an archive is refused, a list holds nonsense, or a file cannot be written.
    """
    folders = voc_sources.folders(root, sources)
    tree = root / "VOCdevkit" / "VOC2012"
    report = Report("PASCAL VOC 2012", tree, CLASSES, EXPECTED, checked_only=check)
    if not (check or download):
        voc_sources.require_voc(folders)

    def bring_in() -> None:
        if download:
            voc_sources.download(root, folders)
        report.problems += voc_sources.gather(root, folders, workers=workers)

    return check_or_fill(
        report,
        root,
        wanted=[tree / "JPEGImages", tree / "SegmentationClassAug", tree / _VAL],
        swept=[root / "VOCdevkit", root / "benchmark_RELEASE"],
        bring_in=bring_in,
        jobs=lambda: _jobs(report, tree, voc_sources.find_sbd(folders)),
        work=_work,
        workers=workers,
    )


def _jobs(report: Report, tree: Path, sbd: Path | None) -> list[_Job]:
    """The work on every image of the data set; what is left out goes into the report."""
    if report.checked_only and not (tree / _VAL).is_file():
        return []
    val = _read_list(tree / _VAL)
    voc = {path.stem for path in (tree / "SegmentationClass").glob("*.png")}
    there = {path.stem for path in (tree / "SegmentationClassAug").glob("*.png")}
    images = {path.stem for path in (tree / "JPEGImages").glob("*.jpg")}
    sbd_ids = _sbd_ids(sbd) if sbd else set()
    ids = val | there | ((voc | sbd_ids) & images)
    if sbd is None and there <= voc:
        report.warnings.append("SBD (benchmark.tgz) was not found: the masks are those of VOC 2012 alone")
    if left_out := len((voc | sbd_ids) - ids):
        report.warnings.append(f"{left_out:,} masks are left out, as JPEGImages lacks their images")
    with_voc_mask = voc | val
    return [
        _Job(
            split="val" if id_ in val else "train",
            image=tree / "JPEGImages" / f"{id_}.jpg",
            target=tree / "SegmentationClassAug" / f"{id_}.png",
            # Validation is on VOC's own masks: SBD's are not as exact and would give another number.
            voc_mask=tree / "SegmentationClass" / f"{id_}.png" if id_ in with_voc_mask else None,
            sbd_mask=sbd / "cls" / f"{id_}.mat" if sbd and id_ in sbd_ids else None,
            check=report.checked_only,
        )
        for id_ in sorted(ids)
    ]


def _sbd_ids(sbd: Path) -> set[str]:
    lists = [path for path in (sbd / "train.txt", sbd / "val.txt") if path.is_file()]
    if lists:
        return set().union(*map(_read_list, lists))
    return {path.stem for path in (sbd / "cls").glob("*.mat")}


def _read_list(path: Path) -> set[str]:
    """The image ids of a list; they become file names, so nothing else may stand there."""
    if not path.is_file():
        raise UsageError(f"{path}: missing; it belongs to VOC 2012 and says which images are for validation.")
    ids = path.read_text(encoding="utf-8-sig", errors="replace").split()
    for id_ in ids:
        if not _ID.fullmatch(id_):
            raise UsageError(f"{path}: {id_[:80]!r} is no image id.")
    if not ids:
        raise UsageError(f"{path}: is empty.")
    return set(ids)


def _work(job: _Job) -> Outcome:
    outcome = Outcome(job.split)
    try:
        size = check_picture(job.image) if job.check else picture_size(job.image)
    except BadFile as error:
        outcome.problems.append(f"{job.image}: {error}")
        return outcome
    try:
        ids = read_ids(job.target, _ALLOWED, size)
        outcome.actions.append("kept")
    except BadFile as error:
        source = job.voc_mask or job.sbd_mask
        if job.check or source is None:
            outcome.problems.append(f"{job.target}: {error}")
            return outcome
        ids = _make(job, source, size, outcome)
    if ids is not None:
        outcome.pixels = np.bincount(ids.ravel(), minlength=256)
    return outcome


def _make(job: _Job, source: Path, size: tuple[int, int], outcome: Outcome) -> np.ndarray | None:
    """Write the mask from ``source``, VOC's own where there is one."""
    try:
        if source == job.voc_mask:
            ids = read_ids(source, _ALLOWED, size)
        else:
            ids = read_sbd_mask(source)
            check_ids(ids, _ALLOWED, size)
    except BadFile as error:
        outcome.problems.append(f"{source}: {error}")
        return None
    write_whole(job.target, mask_png(ids), flush=False)
    outcome.actions.append("written")
    return ids
