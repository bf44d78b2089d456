"""COCO's annotation files: ``instances.json`` with polygons and run lengths (RLE)."""

from collections import defaultdict
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from dataloaders.mask_file import IGNORE_INDEX
from dataloaders.opening import MAX_PIXELS
from dataloaders.own.annotations.drawn import BACKGROUND, Drawn, write_class_names, write_drawn_mask
from utils.cores import cores
from utils.errors import UsageError
from utils.inputs import first_problem, read_plain
from utils.parallel import for_each

Id = int | str


class _Image(BaseModel):
    id: Id
    file_name: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class _Category(BaseModel):
    id: Id
    name: str


class _RunLengths(BaseModel):
    size: tuple[int, int]
    counts: str | list[int]


class _Annotation(BaseModel):
    id: Id | None = None
    image_id: Id
    category_id: Id
    segmentation: list[list[float]] | _RunLengths | None = None
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int = 0


class _Instances(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def draw_coco(file: Path, folder: Path) -> Drawn:
    """Draw the masks of a COCO file, below ``folder``.

    Class 0 is the background, the others are the categories that have annotations, in the order of the file. Where
    objects of two classes overlap, the smaller one counts. Crowd regions, and objects of which only a box is known, are
    no class. Images without an annotation get no mask.

    Raises
    ------
    UsageError
        The file is no such file, or what it says cannot be drawn; or the package pycocotools is missing.
    """
    try:
        from pycocotools import mask  # noqa: F401
    except ImportError:
        raise UsageError(
            f"--masks {file}: COCO's annotations need a package that is not installed: pip install pycocotools."
        ) from None
    try:
        contents = _Instances.model_validate_json(read_plain(file))
    except OSError as error:
        raise UsageError(f"--masks {file}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise UsageError(
            f"--masks {file}: is no COCO file with images, categories and annotations ({first_problem(error)})."
        ) from None
    of_image: dict[Id, list[_Annotation]] = defaultdict(list)
    for annotation in contents.annotations:
        of_image[annotation.image_id].append(annotation)
    used = {annotation.category_id for annotation in contents.annotations if not annotation.iscrowd}
    unknown = used - {category.id for category in contents.categories}
    if unknown:
        raise UsageError(
            f"--masks {file}: has annotations of category {min(map(str, unknown))}, which it does not name."
        )
    used_categories = [category for category in contents.categories if category.id in used]
    classes = [category for category in used_categories if category.name.lower() != BACKGROUND]
    index_of = {category.id: 0 for category in used_categories} | {
        category.id: index for index, category in enumerate(classes, 1)
    }
    folder.mkdir()
    class_file = write_class_names(folder.parent / "classes.txt", [category.name for category in classes], file)
    annotated = [image for image in contents.images if image.id in of_image]
    draw = partial(_draw, file=file, folder=folder, index_of=index_of)
    overlaps = for_each(draw, [(image, of_image[image.id]) for image in annotated], workers=cores(), label="drawing")

    notes = ["pixels outside all objects are the class background"]
    if len(annotated) < len(contents.images):
        notes.append(
            f"{len(contents.images) - len(annotated)} images that {file} lists have no annotation: they are unlabelled"
        )
    if any(annotation.iscrowd for annotation in contents.annotations):
        notes.append("crowd regions are no class (ignored)")
    if any(not annotation.segmentation for annotation in contents.annotations):
        notes.append("objects of which only the box is known are no class (ignored), within it")
    if len(used_categories) < len(contents.categories):
        notes.append(
            f"{len(contents.categories) - len(used_categories)} categories have no annotation and are no class"
        )
    share = sum(overlaps) / max(1, sum(image.height * image.width for image in annotated))
    if share:
        notes.append(f"where objects of two classes overlap ({share:.2%} of the pixels), the smaller one counts")
    return Drawn(folder, class_file, notes)


def _draw(work: tuple[_Image, list[_Annotation]], file: Path, folder: Path, index_of: dict[Id, int]) -> int:
    """Write the mask of one image; the pixels that belong to objects of two classes."""
    image, annotations = work
    if image.height * image.width > MAX_PIXELS:
        raise UsageError(f"{file}: its image {image.file_name} is refused: more than {MAX_PIXELS:,} pixels. Cut it up.")
    mask = np.zeros((image.height, image.width), np.uint8)
    objects = []
    for annotation in annotations:
        region = _region(annotation, image, file)
        if annotation.iscrowd or not annotation.segmentation:
            mask[region] = IGNORE_INDEX
        else:
            objects.append((int(region.sum()), index_of[annotation.category_id], region))
    taken, overlap = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
    for _, index, region in sorted(objects, key=lambda one: -one[0]):
        overlap |= region & taken & (mask != index)
        taken |= region
        mask[region] = index
    parts = [part for part in PurePosixPath(image.file_name.replace("\\", "/")).parts if part not in ("/", "..")]
    write_drawn_mask(folder.joinpath(*parts[:-1], f"{parts[-1]}.png"), mask)
    return int(overlap.sum())


def _region(annotation: _Annotation, image: _Image, file: Path) -> np.ndarray:
    """bool (H, W): the pixels of an annotation."""
    from pycocotools import mask as coco

    where = f"{file}: annotation {annotation.id} of {image.file_name}"
    size, region = (image.height, image.width), np.zeros((image.height, image.width), bool)
    outline: Any = annotation.segmentation
    if not outline:
        if annotation.bbox:
            left, top, width, height = annotation.bbox
            region[max(0, int(top)) : int(np.ceil(top + height)), max(0, int(left)) : int(np.ceil(left + width))] = True
        return region
    try:
        if isinstance(outline, _RunLengths):
            if outline.size != size:
                raise UsageError(f"{where} is of {outline.size[1]} x {outline.size[0]} pixels, the image of others.")
            counts = outline.counts if isinstance(outline.counts, list) else _counts_of(outline.counts)
            if min(counts, default=0) < 0 or sum(counts) != image.height * image.width:
                raise UsageError(f"{where} has run lengths that do not fill the image. Export it again.")
            return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(image.width, image.height).T
        if any(len(polygon) % 2 or not np.isfinite(polygon).all() for polygon in outline):
            raise UsageError(f"{where} has a polygon that is no list of x, y, x, y, … Export it again.")
        # Two points have no area; far outside the image, no pixel.
        polygons = [np.clip(polygon, -1e5, 1e5).tolist() for polygon in outline if len(polygon) >= 6]
        return coco.decode(coco.merge(coco.frPyObjects(polygons, *size))).astype(bool) if polygons else region
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"{where} cannot be drawn ({error}). Export it again.") from None


def _counts_of(text: str) -> list[int]:
    """The run lengths that COCO's compressed text says: five bits a character, from the third on as differences.

    Not by pycocotools, whose decoder writes beyond its memory where the text is none of these.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("its run lengths are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its run lengths are damaged")
    return counts
