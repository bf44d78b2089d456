"""The demo data set: scenes of :mod:`dataloaders.sets.demo.scenes` on disk, in VOC layout."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataloaders.sets.demo.recipe import BACKGROUND_COLOUR, OBJECTS, recipe
from dataloaders.sets.demo.scenes import draw_scene
from utils.errors import UsageError
from utils.folders import replacing, sole_maker

CLASSES: tuple[str, ...] = ("background", *(c.name for c in OBJECTS))
COLOURS: tuple[tuple[int, int, int], ...] = (BACKGROUND_COLOUR, *(c.colour for c in OBJECTS))

VERSION = 1  # of the code that draws; constants are covered by recipe()
_JPEG_QUALITY = 95
_MARK = "demo.json"


def make_demo(
    root: Path, *, seed: int = 0, n_train: int = 400, n_val: int = 200, size: int = 128, quiet: bool = False
) -> None:
    """Make the demo data set at ``root``, unless the same one is there already.

    Below ``root``: ``VOCdevkit/VOC2012/`` with ``JPEGImages``, ``SegmentationClass`` (palette PNGs, every
    image has one), ``ImageSets/Segmentation/{train,val}.txt`` and ``classes.txt`` (``name r g b`` a line),
    and ``demo.json`` with what it was made from. The folder appears complete or not at all. A demo data set made
    from anything else is replaced.

    Parameters
    ----------
    root
        Folder to make.
    seed
        Scenes are a function of ``seed``, their list and their number in it, and ``size``.
    n_train
        Images in ``train.txt``, labelled and unlabelled together.
    n_val
        Images in ``val.txt``.
    size
        Nominal height and width in pixels; scenes vary by an eighth.
    quiet
        No progress bar.

    Raises
    ------
    UsageError
        Something other than a demo data set is at ``root``.
    """
    root = Path(root).absolute()
    made_from = {
        "version": VERSION,
        "recipe": recipe(),
        "seed": seed,
        "n_train": n_train,
        "n_val": n_val,
        "size": size,
    }
    if _read_mark(root) == made_from:
        return
    with sole_maker(root, wait=True):  # another run may be making it just now
        if _read_mark(root) == made_from:
            return
        if root.exists() and not (root / _MARK).is_file() and not (root.is_dir() and not any(root.iterdir())):
            raise UsageError(
                f"{root}: holds something that is not the demo data set. Move it away, or name another folder."
            )
        with replacing(root) as new:
            _write_scenes(new / "VOCdevkit" / "VOC2012", seed, {"train": n_train, "val": n_val}, size, quiet)
            (new / _MARK).write_text(json.dumps(made_from, indent=2) + "\n")


def _read_mark(root: Path) -> dict | None:
    """What the data set at ``root`` was made from; ``None`` where there is no readable ``demo.json``."""
    try:
        return json.loads((root / _MARK).read_text())
    except (OSError, ValueError, RecursionError):
        return None


def _write_scenes(voc: Path, seed: int, counts: dict[str, int], size: int, quiet: bool) -> None:
    """Draw ``counts[split]`` scenes of every split and writes them below ``voc``."""
    images, masks, lists = voc / "JPEGImages", voc / "SegmentationClass", voc / "ImageSets" / "Segmentation"
    for folder in (images, masks, lists):
        folder.mkdir(parents=True)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(COLOURS)] = COLOURS
    palette[255] = (224, 224, 192)

    with tqdm(total=sum(counts.values()), desc="demo data set", unit="image", disable=quiet or None) as bar:
        for number, (split, count) in enumerate(counts.items()):
            ids = [f"{split}_{i:04d}" for i in range(count)]
            for i, image_id in enumerate(ids):
                # A scene's own stream: the same whatever the other scenes are and however many.
                image, mask = draw_scene(np.random.default_rng([seed, number, i]), size)
                Image.fromarray(image).save(images / f"{image_id}.jpg", quality=_JPEG_QUALITY, subsampling=0)
                label = Image.fromarray(mask)
                label.putpalette(palette.tobytes())
                label.save(masks / f"{image_id}.png")
                bar.update()
            (lists / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    lines = (f"{name} {r} {g} {b}\n" for name, (r, g, b) in zip(CLASSES, COLOURS, strict=True))
    (voc / "classes.txt").write_text("".join(lines))
