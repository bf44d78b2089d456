import builtins
import json

import numpy as np
import pytest
from PIL import Image

from dataloaders.own.annotations.coco import draw_coco
from utils.errors import UsageError

SQUARE = [2, 2, 6, 2, 6, 6, 2, 6]  # pixels 2 to 5 in both directions
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 9, "name": "unused"}]


def annotation(outline, category=7, image=1, **more):
    return {"id": 5, "image_id": image, "category_id": category, "segmentation": outline, **more}


def write(tmp_path, annotations, *, images=None, categories=CATEGORIES):
    images = images or [{"id": 1, "file_name": "north/a.jpg", "height": 8, "width": 10}]
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories, "info": {}}))
    return file


def drawn(tmp_path, *annotations, **more):
    """The mask of the one image, and what ``draw_coco`` gives."""
    found = draw_coco(write(tmp_path, annotations, **more), tmp_path / "drawn")
    with Image.open(next(found.folder.rglob("*.png"))) as image:
        return np.asarray(image), found


def filled(*regions):
    mask = np.zeros((8, 10), np.uint8)
    for rows, columns, value in regions:
        mask[slice(*rows), slice(*columns)] = value
    return mask


RUNS = {"size": [8, 10], "counts": [2 * 8 + 2, 4, 4, 4, 4, 4, 4, 4, 80 - 46]}


@pytest.mark.parametrize("outline", [[SQUARE], RUNS], ids=["polygon", "run lengths"])
def test_object_is_drawn_with_the_index_of_its_category_in_the_files_order(tmp_path, outline):
    mask, found = drawn(tmp_path, annotation(outline), annotation([[7, 0, 9, 0, 9, 2, 7, 2]], 3))
    assert np.array_equal(mask, filled(((2, 6), (2, 6), 1), ((0, 2), (7, 9), 2)))
    assert found.class_file.read_text().split() == ["background", "cat", "dog"]
    assert (found.folder / "north/a.jpg.png").is_file()
    assert any("1 categories have no annotation" in note for note in found.notes)


def test_compressed_run_lengths_are_those_of_pycocotools(tmp_path):
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    for number, share in enumerate((0.02, 0.5, 0.98)):
        expected = (rng.random((8, 10)) < share).astype(np.uint8)
        runs = coco.encode(np.asfortranarray(expected))
        mask, _ = drawn(tmp_path / str(number), annotation({"size": [8, 10], "counts": runs["counts"].decode()}))
        assert np.array_equal(mask, expected)


@pytest.mark.parametrize("text", ["", "P", "oooooooooo", "\u00e9", "0" * 90, "99999", "~~~~"])
def test_damaged_run_lengths_are_refused_before_any_decoder_sees_them(tmp_path, text):
    with pytest.raises(UsageError, match="run lengths"):
        drawn(tmp_path, annotation({"size": [8, 10], "counts": text}))


def test_object_of_several_polygons_is_their_union(tmp_path):
    mask, _ = drawn(tmp_path, annotation([SQUARE, [7, 0, 9, 0, 9, 2, 7, 2], [1, 1, 2, 2]]))
    assert np.array_equal(mask, filled(((2, 6), (2, 6), 1), ((0, 2), (7, 9), 1)))


def test_crowds_and_objects_of_which_only_the_box_is_known_are_no_class(tmp_path):
    crowd = annotation({**RUNS, "counts": [0, 80]}, iscrowd=1)
    mask, found = drawn(tmp_path, crowd, annotation([SQUARE]))
    assert np.array_equal(mask, np.where(filled(((2, 6), (2, 6), 1)), 1, 255))
    assert any("crowd" in note for note in found.notes)
    mask, found = drawn(tmp_path / "b", annotation([SQUARE]), annotation([], bbox=[7, 0, 2, 2]))
    assert np.array_equal(mask, filled(((2, 6), (2, 6), 1), ((0, 2), (7, 9), 255)))


@pytest.mark.parametrize("order", [1, -1])
def test_smaller_object_lies_over_the_larger_one_which_is_said(tmp_path, order):
    objects = [annotation([SQUARE]), annotation([[0, 0, 10, 0, 10, 8, 0, 8]], 3)]
    mask, found = drawn(tmp_path, *objects[::order])
    assert np.array_equal(mask, np.where(filled(((2, 6), (2, 6), 1)), 1, 2))
    assert any("20.00% of the pixels" in note for note in found.notes)


def test_images_without_annotations_have_no_mask(tmp_path):
    images = [{"id": id_, "file_name": f"{id_}.jpg", "height": 8, "width": 10} for id_ in (1, 2)]
    _, found = drawn(tmp_path, annotation([SQUARE]), images=images)
    assert [path.name for path in found.folder.iterdir()] == ["1.jpg.png"]
    assert any("1 images" in note and "unlabelled" in note for note in found.notes)


@pytest.mark.parametrize(
    ("annotations", "categories", "message"),
    [
        ([annotation([SQUARE], 4)], CATEGORIES, "category 4, which it does not name"),
        ([annotation([[1, 2, 3, 4, 5, 6, 7]])], CATEGORIES, "no list of x, y"),
        ([annotation({"size": [9, 9], "counts": [81]})], CATEGORIES, "is of 9 x 9 pixels"),
        ([annotation({"size": [8, 10], "counts": [999]})], CATEGORIES, "do not fill the image"),
        ([annotation([SQUARE]), annotation([SQUARE], 3)], [{"id": 7, "name": "a"}, {"id": 3, "name": "a"}], "name 'a'"),
        ([], CATEGORIES, "no object in it has a class"),
        ([{"image_id": 1}], CATEGORIES, "no COCO file.*category_id"),
    ],
)
def test_what_cannot_be_drawn_is_named_with_its_file(tmp_path, annotations, categories, message):
    with pytest.raises(UsageError, match=rf"instances\.json.*{message}"):
        draw_coco(write(tmp_path, annotations, categories=categories), tmp_path / "drawn")


def test_missing_package_is_named(tmp_path, monkeypatch):
    before = builtins.__import__

    def without(name, *more, **options):
        if name.startswith("pycocotools"):
            raise ImportError
        return before(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="pip install pycocotools"):
        draw_coco(write(tmp_path, []), tmp_path / "drawn")
