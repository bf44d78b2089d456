"""What ``--masks`` names, where it is no folder of pictures: a COCO file, or a folder of labelme's files."""

import json
from pathlib import Path

from dataloaders.own.annotations.coco import draw_coco
from dataloaders.own.annotations.drawn import Drawn
from dataloaders.own.annotations.labelme import draw_labelme
from dataloaders.own.pairs import MASK_SUFFIXES
from utils.errors import UsageError

_JPEG = (".jpg", ".jpeg")


def draw_annotations(images_folder: Path, masks: Path, folder: Path) -> Drawn | None:
    """Masks drawn below ``folder`` where ``masks`` names annotations, else None.

    A folder holds labelme's annotations where it has such files and no pictures that may be masks.

    Raises
    ------
    UsageError
        They cannot be read or drawn.
    """
    if masks.is_file():
        if masks.suffix.lower() != ".json":
            raise UsageError(f"--masks {masks}: is no folder of masks and no COCO annotation file (.json).")
        return draw_coco(masks, folder)
    if not masks.is_dir():
        return None
    files = [path for path in sorted(masks.rglob("*.json")) if path.name[0] != "." and _is_labelme(path)]
    same = images_folder.resolve() == masks.resolve()
    pictures = (path.suffix.lower() for path in masks.rglob("*"))
    if not files or (not same and any(suffix in MASK_SUFFIXES and suffix not in _JPEG for suffix in pictures)):
        return None
    return draw_labelme(masks, files, images_folder, folder)


def _is_labelme(path: Path) -> bool:
    try:
        return "shapes" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return b'"shapes"' in path.read_bytes()[:65536] if path.is_file() else False
