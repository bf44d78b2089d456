"""Miniature PASCAL VOC, SBD and Cityscapes, as they look when downloaded: right names, right formats.

The colour of a pixel follows its class, so a network can learn these images.
"""

import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix

VOC_ARCHIVE, SBD_ARCHIVE = "VOCtrainval_11-May-2012.tar", "benchmark.tgz"
CITYSCAPES_ARCHIVES = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")

PUBLIC_TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9,
    23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""labelId to trainId, as Cityscapes publishes it; every other labelId is ignored (255)."""


@dataclass(frozen=True)
class VocTree:
    """What ``voc_tree`` has written; ``masks`` are those that ``SegmentationClassAug`` should hold, by id."""

    folder: Path
    train: tuple[str, ...]
    val: tuple[str, ...]
    sbd_only: tuple[str, ...]
    masks: dict[str, np.ndarray]

    @property
    def pool(self) -> tuple[str, ...]:
        """The ids of the augmented training pool."""
        return tuple(sorted(self.train + self.sbd_only))


@dataclass(frozen=True)
class CityscapesTree:
    """What ``cityscapes_tree`` has written; ``masks`` are labelTrainIds, by the stem ``<city>_<frame>``."""

    folder: Path
    train: tuple[str, ...]
    val: tuple[str, ...]
    masks: dict[str, np.ndarray]


def voc_tree(
    folder: Path,
    *,
    train: int = 3,
    val: int = 2,
    sbd_only: int = 4,
    size: tuple[int, int] = (30, 40),
    classes: int = 21,
    seed: int = 0,
) -> VocTree:
    """Write ``folder/VOCdevkit/VOC2012`` and ``folder/benchmark_RELEASE``; ``size`` is height, width.

    SBD also has the first image of VOC's train and of its val list, with masks of its own. Class 0 is in
    every mask, the others by turns. There are files of no use to us, as in the downloads.
    """
    random = np.random.default_rng(seed)
    ids = [f"20{7 + i % 5:02d}_{i:06d}" for i in range(train + val + sbd_only)]
    train_ids, val_ids, sbd_ids = ids[:train], ids[train : train + val], ids[train + val :]
    voc, sbd = folder / "VOCdevkit" / "VOC2012", folder / "benchmark_RELEASE" / "dataset"
    masks = {}
    for number, id_ in enumerate(ids):
        masks[id_] = _scene(size, [0, *_by_turns(number, 1, classes)], random)
        _save(voc / "JPEGImages" / f"{id_}.jpg", _picture(masks[id_], random), quality=95)
        if id_ not in sbd_ids:
            masks[id_][0, :] = 255  # the border that VOC leaves out
            _save(voc / "SegmentationClass" / f"{id_}.png", _palette_image(masks[id_]))
            _save(voc / "SegmentationObject" / f"{id_}.png", _palette_image(masks[id_]))
        _write(voc / "Annotations" / f"{id_}.xml", "<annotation/>")
    for name, listed in (("train", train_ids), ("val", val_ids), ("trainval", train_ids + val_ids)):
        _write(voc / "ImageSets" / "Segmentation" / f"{name}.txt", "".join(f"{id_}\n" for id_ in listed))
    for id_ in sbd_ids + train_ids[:1] + val_ids[:1]:
        mask = masks[id_] if id_ in sbd_ids else np.full(size, 7, np.uint8)
        _save_mat(sbd / "cls" / f"{id_}.mat", mask)
    _write(sbd / "train.txt", "".join(f"{id_}\n" for id_ in sbd_ids[::2] + train_ids[:1]))
    _write(sbd / "val.txt", "".join(f"{id_}\n" for id_ in sbd_ids[1::2] + val_ids[:1]))
    return VocTree(folder, tuple(train_ids), tuple(val_ids), tuple(sbd_ids), masks)


def pack_voc(tree: VocTree, downloads: Path) -> Path:
    """The two archives of a tree, in ``downloads``, under their published names."""
    downloads.mkdir(parents=True, exist_ok=True)
    for name, mode, content in (
        (VOC_ARCHIVE, "w", "VOCdevkit"),
        (SBD_ARCHIVE, "w:gz", "benchmark_RELEASE"),
    ):
        with tarfile.open(downloads / name, mode) as archive:
            archive.add(tree.folder / content, content)
    return downloads


def cityscapes_tree(
    folder: Path,
    *,
    train: int = 3,
    val: int = 2,
    size: tuple[int, int] = (24, 48),
    seed: int = 0,
) -> CityscapesTree:
    """Write ``folder/leftImg8bit`` and ``folder/gtFine`` with labelIds only; ``size`` is height, width.

    Every mask holds road, the other of the 34 labels by turns, and a licence plate (-1, 255 in 8 bits).
    """
    random = np.random.default_rng(seed)
    table = np.full(256, 255, np.uint8)
    table[list(PUBLIC_TRAIN_IDS)] = list(PUBLIC_TRAIN_IDS.values())
    cities = {"train": ("aachen", "bochum"), "val": ("lindau", "munster"), "test": ("berlin",)}
    stems: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    masks = {}
    for split, count in (("train", train), ("val", val), ("test", 1)):
        for i in range(count):
            city = cities[split][i % len(cities[split])]
            stem = f"{city}_{i:06d}_000019"
            labels = _scene(size, [7, *_by_turns(len(masks), 0, 34, 5)], random)
            labels[-2:, -2:] = 255
            stems[split].append(stem)
            masks[stem] = table[labels]
            images, fine = folder / "leftImg8bit" / split / city, folder / "gtFine" / split / city
            _save(images / f"{stem}_leftImg8bit.png", _picture(labels, random))
            _save(fine / f"{stem}_gtFine_labelIds.png", Image.fromarray(labels))
            _save(fine / f"{stem}_gtFine_color.png", _picture(labels, random))
            _write(fine / f"{stem}_gtFine_polygons.json", "{}")
    return CityscapesTree(folder, tuple(sorted(stems["train"])), tuple(sorted(stems["val"])), masks)


def pack_cityscapes(tree: CityscapesTree, downloads: Path) -> Path:
    """The two archives of a tree, in ``downloads``, under their published names."""
    downloads.mkdir(parents=True, exist_ok=True)
    for name in CITYSCAPES_ARCHIVES:
        with zipfile.ZipFile(downloads / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((tree.folder / name.partition("_")[0]).rglob("*")):
                archive.write(path, path.relative_to(tree.folder).as_posix())
    return downloads


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below a folder: inode, time of change, content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _by_turns(number: int, first: int, end: int, count: int = 3) -> list[int]:
    return [first + (number * count + i) % (end - first) for i in range(count)]


def _scene(size: tuple[int, int], labels: list[int], random: np.random.Generator) -> np.ndarray:
    """A background of the first label and a rectangle of each other one, uint8 (H, W)."""
    height, width = size
    mask = np.full(size, labels[0], np.uint8)
    for place, label in enumerate(labels[1:]):
        left = place * width // (len(labels) - 1)
        top = int(random.integers(1, height // 2))
        mask[top : top + height // 3, left : left + max(width // (2 * len(labels)), 2)] = label
    return mask


def _picture(labels: np.ndarray, random: np.random.Generator) -> Image.Image:
    colours = np.random.default_rng(7).integers(30, 226, (256, 3))
    noisy = colours[labels] + random.integers(-12, 13, (*labels.shape, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _palette_image(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette(np.random.default_rng(3).integers(0, 256, 768).astype(np.uint8).tobytes())
    return image


def _save_mat(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    boundaries = np.empty((20, 1), object)
    for index in range(20):
        boundaries[index, 0] = csc_matrix(mask == index + 1)
    present = np.array([[label] for label in np.unique(mask) if label], np.uint8)
    content = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}
    savemat(path, {"GTcls": content}, do_compression=True)


def _save(path: Path, image: Image.Image, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
