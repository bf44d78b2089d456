"""Where VOC 2012 and SBD come from: extracted trees, archives, the network."""

import os
import re
from collections.abc import Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path

from dataloaders.prepare.archives import unpack
from dataloaders.prepare.pictures import is_in_order
from utils.errors import UsageError
from utils.files import link_or_copy
from utils.parallel import for_each

VOC_ARCHIVE = "VOCtrainval_11-May-2012.tar"
SBD_ARCHIVE = "benchmark.tgz"
_VOC_PARTS = (("JPEGImages", "*.jpg"), ("SegmentationClass", "*.png"), ("ImageSets/Segmentation", "*.txt"))
_NAME = r"[^/.][^/]*"
_VOC_MEMBER = re.compile(
    rf"(?:\./)?VOCdevkit/VOC2012/(JPEGImages/{_NAME}\.jpg|SegmentationClass/{_NAME}\.png"
    rf"|ImageSets/Segmentation/{_NAME}\.txt)"
)
_SBD_MEMBER = re.compile(rf"(?:\./)?benchmark_RELEASE/dataset/(cls/{_NAME}\.mat|train\.txt|val\.txt)")


def folders(root: Path, sources: Sequence[Path]) -> list[Path]:
    """The root and the sources, each to be looked through; an archive stands for its folder."""
    for source in sources:
        if not source.exists():
            raise UsageError(f"{source}: this source does not exist.")
    return [root, *(source if source.is_dir() else source.parent for source in sources)]


def find_voc(folder: Path) -> Path | None:
    """The folder ``VOC2012`` of an extracted tree at or below ``folder``."""
    for tree in (folder / "VOCdevkit" / "VOC2012", folder / "VOC2012", folder):
        if (tree / "JPEGImages").is_dir() and (tree / "ImageSets" / "Segmentation").is_dir():
            return tree
    return None


def find_sbd(places: Sequence[Path]) -> Path | None:
    """The folder with ``cls`` of the first extracted SBD among ``places``, the complete ones first."""
    trees = [
        tree
        for place in places
        for tree in (place / "benchmark_RELEASE" / "dataset", place / "dataset", place / "sbd", place)
        if (tree / "cls").is_dir()
    ]
    return next(filter(_is_complete, trees), trees[0] if trees else None)


def require_voc(places: Sequence[Path]) -> None:
    """Raise ``UsageError`` unless VOC 2012 is to be found, as a tree or an archive."""
    if not any(find_voc(place) or (place / VOC_ARCHIVE).is_file() for place in places):
        raise UsageError(
            f"VOC 2012 is not in {', nor in '.join(map(str, places))}: looked for {VOC_ARCHIVE} and for "
            "VOCdevkit/VOC2012/{JPEGImages,ImageSets/Segmentation}. Name its folder with --source, or fetch it "
            "with --download."
        )


def gather(root: Path, places: Sequence[Path], *, workers: int) -> list[str]:
    """Bring the files of VOC 2012 below ``root``, and unpack SBD there where only its archive is at hand.

    Returns
    -------
    list of str
        The files that could not be brought, as ``<path>: <reason>``.
    """
    problems: list[str] = []
    tree = root / "VOCdevkit" / "VOC2012"
    for place in places:
        found = find_voc(place)
        if found is not None and found.resolve() != tree.resolve():
            problems += _link_tree(found, tree, workers=workers)
        elif (place / VOC_ARCHIVE).is_file():
            unpack(place / VOC_ARCHIVE, partial(_place, _VOC_MEMBER, tree))
    sbd = find_sbd(places)
    archives = [place / SBD_ARCHIVE for place in places if (place / SBD_ARCHIVE).is_file()]
    if archives and not (sbd and _is_complete(sbd)):
        unpack(archives[0], partial(_place, _SBD_MEMBER, root / "benchmark_RELEASE" / "dataset"))
    return problems


def download(root: Path, places: Sequence[Path]) -> None:
    """Fetch the archives of VOC 2012 and SBD into ``root``, where neither they nor their trees are at hand.

    Addresses and check sums are those of torchvision's ``VOCSegmentation`` and ``SBDataset``. Those classes
    also unpack, but without a look at the members' paths, and SBD's cannot go on after an interruption; so
    the unpacking is ours.

    Raises
    ------
    UsageError
        There is no network, or what came is not the published file.
    """
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = DATASET_YEAR_DICT["2012"]
    if not any(find_voc(place) for place in places):
        _fetch(voc["url"], root / VOC_ARCHIVE, voc["md5"], places)
    sbd = find_sbd(places)
    if not (sbd and _is_complete(sbd)):
        _fetch(SBDataset.url, root / SBD_ARCHIVE, SBDataset.md5, places)


def _fetch(url: str, target: Path, md5: str, places: Sequence[Path]) -> None:
    from torchvision.datasets.utils import check_integrity, download_url

    for archive in (place / target.name for place in places):
        if archive.is_file():
            if check_integrity(archive, md5):
                return
            raise UsageError(f"{archive}: is not the published file (check sum). Delete it and run again.")
    unfinished = target.parent / ".download"
    try:
        download_url(url, unfinished, target.name, md5)
        os.replace(unfinished / target.name, target)
        unfinished.rmdir()
    except (OSError, RuntimeError, HTTPException) as error:
        raise UsageError(
            f"{url}: cannot be downloaded ({error}). Without a network here, download it elsewhere and put it "
            f"into {target.parent}."
        ) from None


def _place(pattern: re.Pattern[str], folder: Path, name: str) -> Path | None:
    match = pattern.fullmatch(name)
    return folder / match[1] if match else None


def _is_complete(sbd: Path) -> bool:
    """Whether SBD's two lists are there, and all that they list."""
    masks = {path.stem for path in (sbd / "cls").glob("*.mat")}
    lists = [sbd / "train.txt", sbd / "val.txt"]
    return all(path.is_file() and masks.issuperset(path.read_text(errors="replace").split()) for path in lists)


def _link_tree(source: Path, target: Path, *, workers: int) -> list[str]:
    """Bring an extracted VOC 2012 to ``target``; what could not be brought, and why."""
    pairs = [
        (path, target / folder / path.name)
        for folder, pattern in _VOC_PARTS
        for path in sorted((source / folder).glob(pattern))
    ]
    problems = for_each(_bring, pairs, workers=workers, label="linking")
    return [problem for problem in problems if problem]


def _bring(pair: tuple[Path, Path]) -> str | None:
    source, target = pair
    try:
        if not is_in_order(target, source.stat().st_size):
            link_or_copy(source, target)
    except (OSError, RuntimeError) as error:  # a link that leads nowhere, or in a circle
        return f"{source}: unreadable ({getattr(error, 'strerror', None) or error})"
    return None
