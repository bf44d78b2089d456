import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from dataloaders.own.annotations.labelme import draw_labelme
from tests.dataloaders.miniature import write_image
from utils.errors import UsageError


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def drawn(tmp_path, *shapes, **more):
    """The mask of one file, and what ``draw_labelme`` gives."""
    path = tmp_path / "source" / "north" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": "5", "shapes": shapes, "imageHeight": 30, "imageWidth": 40, **more}))
    found = draw_labelme(tmp_path / "source", [path], tmp_path / "images", tmp_path / "drawn")
    with Image.open(found.folder / "north" / "a.png") as image:
        return np.asarray(image), found


def filled(*regions):
    mask = np.zeros((30, 40), np.uint8)
    for rows, columns, value in regions:
        mask[slice(*rows), slice(*columns)] = value
    return mask


def test_polygons_and_rectangles_have_the_index_of_their_label_in_the_order_of_the_alphabet(tmp_path):
    mask, found = drawn(
        tmp_path,
        shape("tree", [[2, 3], [9, 3], [9, 8], [2, 8]]),
        shape("car", [[30, 20], [20, 10]], "rectangle"),
    )
    assert np.array_equal(mask, filled(((3, 9), (2, 10), 2), ((10, 21), (20, 31), 1)))
    assert found.class_file.read_text().split() == ["background", "car", "tree"]


def test_circle_is_that_of_its_centre_and_a_point_on_its_edge(tmp_path):
    mask, _ = drawn(tmp_path, shape("a", [[20, 15], [20, 23]], "circle"))
    rows, columns = np.mgrid[:30, :40]
    distance = np.hypot(rows - 15, columns - 20)
    assert (mask[distance < 7.5] == 1).all()
    assert (mask[distance > 8.5] == 0).all()


def test_later_shapes_lie_over_earlier_ones_so_that_the_background_makes_holes(tmp_path):
    mask, found = drawn(
        tmp_path,
        shape("a", [[2, 2], [20, 20]], "rectangle", group_id=1),
        shape("_background_", [[5, 5], [8, 8]], "rectangle", group_id=1),
        shape("__ignore__", [[12, 12], [14, 14]], "rectangle"),
    )
    assert np.array_equal(mask, filled(((2, 21), (2, 21), 1), ((5, 9), (5, 9), 0), ((12, 15), (12, 15), 255)))
    assert any("__ignore__" in note for note in found.notes)


RASTER = """
. . . . . . . . . . . .
. 2 2 2 2 2 2 2 2 2 . .
. . . 2 2 2 2 2 2 2 . .
. . . . 2 2 2 2 2 2 . .
. . . 1 1 1 2 2 2 2 . .
. . 1 1 1 1 1 2 2 2 . .
. 1 1 . . . 1 1 . 2 . .
. 1 1 . 2 . 1 1 . . . .
. 1 1 . . . 1 1 . . . .
. . 1 1 1 1 1 . . . . .
. . . 1 1 1 . . . . . .
. . . . . . . . . . . .
"""


def test_shapes_have_the_pixels_of_a_raster_drawn_by_hand(tmp_path):
    """A triangle to its slanted edge; over it a circle, to half a pixel beyond its radius; in it a hole, with a dot."""
    mask, _ = drawn(
        tmp_path,
        shape("b", [[1, 1], [9, 1], [9, 6]]),
        shape("a", [[4, 7], [4, 10]], "circle"),
        shape("_background_", [[3, 6], [5, 6], [5, 8], [3, 8]]),
        shape("b", [[4, 7], [4, 7]], "rectangle"),
        imageHeight=12,
        imageWidth=12,
    )
    expected = RASTER.replace(".", "0").split()
    assert mask.ravel().tolist() == [int(value) for value in expected]


def test_lines_points_and_drawn_masks_are_as_in_labelmes_export(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [255, 255]], np.uint8)).save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    mask, _ = drawn(
        tmp_path,
        shape("a", [[5, 15], [30, 15]], "linestrip"),
        shape("b", [[20, 25]], "point"),
        shape("c", [[0, 0], [1, 1]], "mask", mask=content),
    )
    assert (mask[:, 15] == 1).sum() == 10
    assert (mask == 2).sum(0).max() == 10 or (mask == 2).sum(0).max() == 11
    assert mask[:2, :2].tolist() == [[3, 0], [3, 3]]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([shape("a", [[1, 1], [2, 2]])], "type polygon with 2 points"),
        ([shape("a", [[1, 1], [2, 2]], "ellipse3d")], "type ellipse3d"),
        ([shape("a", [[1, 1], [2, 2]], "mask", mask="!!")], "cannot be read as labelme's mask"),
        ([{"points": []}], "no annotation of labelme .*label"),
        ([], "no object in it has a class"),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path, shapes, message):
    with pytest.raises(UsageError, match=message):
        drawn(tmp_path, *shapes)


def test_file_without_the_size_of_its_image_has_that_of_the_image_of_its_name(tmp_path):
    rectangle = shape("a", [[1, 1], [2, 2]], "rectangle")
    with pytest.raises(UsageError, match=r"a\.json: has no imageHeight and imageWidth, and .*no image of its name"):
        drawn(tmp_path / "without", rectangle, imageHeight=None)
    write_image(tmp_path / "images" / "north" / "a.png", 7, size=(5, 9))
    assert drawn(tmp_path, rectangle, imageHeight=None)[0].shape == (5, 9)
