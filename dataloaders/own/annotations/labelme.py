"""labelme's folders: a JSON file for each image, with polygons, rectangles, circles and drawn masks."""

import base64
import binascii
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field, ValidationError

from dataloaders.images import image_size
from dataloaders.mask_file import IGNORE_INDEX
from dataloaders.opening import MAX_PIXELS, opened
from dataloaders.own.annotations.drawn import Drawn, write_class_names, write_drawn_mask
from dataloaders.sets.description import IMAGE_SUFFIXES
from utils.cores import cores
from utils.errors import UsageError
from utils.inputs import first_problem, read_plain
from utils.parallel import for_each

IGNORED, BACKGROUND_LABELS = "__ignore__", ("_background_", "background")
LINE_WIDTH, POINT_RADIUS = 10, 5
"""As labelme's own export draws them."""
POINTS = {"polygon": (3, None), "rectangle": (2, 2), "circle": (2, 2), "line": (2, 2), "linestrip": (2, None),
          "point": (1, 1), "mask": (2, 2)}  # fmt: skip
"""The least and the greatest number of points of each shape that is drawn."""


class _Shape(BaseModel):
    label: str = Field(min_length=1)
    points: list[tuple[float, float]]
    shape_type: str = "polygon"
    mask: str | None = None


class _Annotation(BaseModel):
    shapes: list[_Shape]
    imageHeight: int | None = Field(None, gt=0)
    imageWidth: int | None = Field(None, gt=0)


def draw_labelme(source: Path, files: Sequence[Path], images_folder: Path, folder: Path) -> Drawn:
    """Draw the masks of labelme's ``files`` below ``source``, below ``folder``.

    Files that do not say the size of their image have that of the image of their name.

    Class 0 is the background, the others are the labels in the order of the alphabet. As in labelme, shapes lie over
    those before them, so that one of ``_background_`` is a hole; ``__ignore__`` is no class; groups say which shapes
    are one object, which class masks do not.

    Raises
    ------
    UsageError
        A file is not labelme's, or has a shape that cannot be drawn.
    """
    annotations = [_read(path, images_folder / path.relative_to(source)) for path in files]
    labels = {shape.label for annotation in annotations for shape in annotation.shapes}
    names = sorted(labels - {IGNORED, *BACKGROUND_LABELS})
    folder.mkdir()
    class_file = write_class_names(folder.parent / "classes.txt", names, source)
    index_of = {name: index for index, name in enumerate(names, 1)} | {IGNORED: IGNORE_INDEX}
    draw = partial(_draw, source=source, folder=folder, index_of=index_of)
    for_each(draw, list(zip(files, annotations, strict=True)), workers=cores(), label="drawing")
    notes = ["pixels outside all shapes are the class background"]
    return Drawn(folder, class_file, notes + (["__ignore__ is no class (ignored)"] if IGNORED in labels else []))


def _read(path: Path, place: Path) -> _Annotation:
    try:
        annotation = _Annotation.model_validate_json(read_plain(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise UsageError(f"{path}: is no annotation of labelme ({first_problem(error)}). Mend or remove it.") from None
    if annotation.imageHeight is None or annotation.imageWidth is None:
        image = next((found for suffix in IMAGE_SUFFIXES if (found := place.with_suffix(suffix)).is_file()), None)
        if image is None:
            raise UsageError(f"{path}: has no imageHeight and imageWidth, and {place.parent} no image of its name.")
        annotation.imageHeight, annotation.imageWidth = image_size(image)
    if annotation.imageHeight * annotation.imageWidth > MAX_PIXELS:
        raise UsageError(f"{path}: its image is refused: more than {MAX_PIXELS:,} pixels. Cut it up.")
    for shape in annotation.shapes:
        least, most = POINTS.get(shape.shape_type, (0, -1))
        if not least <= len(shape.points) <= (len(shape.points) if most is None else most):
            raise UsageError(
                f"{path}: has a shape of type {shape.shape_type} with {len(shape.points)} points, which cannot be "
                f"drawn. Drawn are {', '.join(POINTS)}."
            )
        if not np.isfinite(shape.points).all():
            raise UsageError(f"{path}: has a shape whose points are not finite numbers. Mend it.")
    return annotation


def _draw(work: tuple[Path, _Annotation], source: Path, folder: Path, index_of: dict[str, int]) -> None:
    path, annotation = work
    mask = Image.new("L", (annotation.imageWidth or 0, annotation.imageHeight or 0))  # _read has filled them in
    for shape in annotation.shapes:
        _draw_shape(mask, shape, index_of.get(shape.label, 0), path)
    target = folder / path.relative_to(source).with_suffix(".png")
    write_drawn_mask(target, np.asarray(mask))


def _draw_shape(mask: Image.Image, shape: _Shape, value: int, path: Path) -> None:
    draw = ImageDraw.Draw(mask)
    points = [tuple(point) for point in np.clip(shape.points, -1e5, 1e5).tolist()]
    if shape.shape_type == "polygon":
        draw.polygon(points, fill=value, outline=value)
    elif shape.shape_type == "rectangle":
        (left, right), (top, bottom) = (sorted(side) for side in zip(*points, strict=True))
        draw.rectangle((left, top, right, bottom), fill=value, outline=value)
    elif shape.shape_type == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = float(np.hypot(edge_x - x, edge_y - y))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value, outline=value)
    elif shape.shape_type == "point":
        ((x, y),) = points
        draw.ellipse(
            (x - POINT_RADIUS, y - POINT_RADIUS, x + POINT_RADIUS, y + POINT_RADIUS), fill=value, outline=value
        )
    elif shape.shape_type == "mask":
        try:
            content = base64.b64decode(shape.mask or "", validate=True)
        except binascii.Error:
            content = b""
        with opened(path, content, "labelme's mask of an object", ("PNG",)) as drawn:
            place = tuple(round(side) for side in points[0])
            mask.paste(value, place, drawn.convert("L").point(lambda level: 255 if level else 0))
    else:
        draw.line(points, fill=value, width=LINE_WIDTH)
