import json

import numpy as np
import pytest

from dataloaders import open_data
from dataloaders.sets.described import Description, read_description
from tests.dataloaders.miniature import config_of, ids, looked_up, write_image, write_mask
from utils.errors import UsageError


@pytest.fixture
def root(tmp_path):
    """Images a to f in a folder of their own: a, b, c labelled, d for validation, e and f unlabelled."""
    for name in "abcdef":
        write_image(tmp_path / "images" / "north" / f"{name}.png")
    for name in "abcd":
        write_mask(tmp_path / "data" / "masks" / f"{name}.png")

    def images(names):
        return {name: f"north/{name}.png" for name in names}

    description = Description(
        images=str(tmp_path / "images"),
        classes=["sky", "Bäume"],
        colours=[(1, 2, 3), (4, 5, 6)],
        labelled=images("abc"),
        validation=images("d"),
        unlabelled=images("ef"),
    )
    (tmp_path / "data" / "dataset.json").write_text(description.text(), encoding="utf-8")
    return tmp_path / "data"


def change(root, **keys):
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **keys}))


def refused(root, **keys) -> str:
    with pytest.raises(UsageError) as error:
        looked_up(open_data(config_of(root, "custom", **keys)))
    return str(error.value)


def test_described_data_set_has_its_images_where_they_are_and_its_masks_beside_the_file(root):
    data = open_data(config_of(root, "custom", n_labelled=3))
    assert sorted(ids(data.labelled)) == ["a", "b", "c"]
    assert (ids(data.validation), ids(data.unlabelled)) == (["d"], ["e", "f"])
    assert data.validation[0].image == root.parent / "images" / "north" / "d.png"
    assert data.validation[0].label == root / "masks" / "d.png"
    assert data.unlabelled[0].label is None
    assert data.classes == ("sky", "Bäume")
    assert np.array_equal(data.palette[[0, 1, 255]], [[1, 2, 3], [4, 5, 6], [255, 255, 255]])


def test_description_without_a_validation_image_is_refused(root):
    change(root, validation={})
    assert refused(root) == f"{root}/dataset.json: its validation set is empty. Put images with masks into it."


def test_labelled_images_beyond_their_number_join_the_unlabelled_ones(root):
    data = open_data(config_of(root, "custom", n_labelled=2))
    assert len(data.labelled) == 2
    assert sorted(ids(data.labelled) + ids(data.unlabelled)) == ["a", "b", "c", "e", "f"]
    assert "n_labeled_examples is 4" in refused(root, n_labelled=4)


def test_text_of_a_description_has_an_image_a_line_and_is_read_back(root):
    path = root / "dataset.json"
    assert '        "b": "north/b.png",\n' in path.read_text(encoding="utf-8")
    assert read_description(path).text() == path.read_text(encoding="utf-8")


def test_images_folder_that_has_moved_is_named_with_the_way_out(root):
    (root.parent / "images").rename(root.parent / "moved")
    message = refused(root)
    assert str(root.parent / "images") in message
    assert '"images"' in message
    change(root, images=str(root.parent / "moved"))
    assert len(open_data(config_of(root, "custom")).labelled) == 2


def test_missing_files_are_counted_and_the_first_is_named(root):
    (root.parent / "images" / "north" / "d.png").unlink()
    (root / "masks" / "d.png").unlink()
    message = refused(root)
    assert "2 of its files are gone" in message
    assert "d.png" in message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labelled": {"../up": "north/a.png"}}, "key labelled.*plain file name"),
        ({"labelled": {"a": "../images/north/a.png"}}, "key labelled.a: .*below the images folder"),
        ({"unlabelled": {"e": "/etc/e.png"}}, "key unlabelled.e: .*below the images folder"),
        ({"unlabelled": {"e": "north/e.png", "f": "north/e.png"}}, "unlabelled images: .*e.png stands there more than"),
        (
            {"validation": {"a": "north/a.png", "d": "north/d.png"}},
            "dataset.json: a is in labelled and in validation",
        ),
        ({"classes": ["sky", "a\u0007"]}, "class 'a.*this name cannot be used"),
        ({"colours": [[0, 0, 0]]}, "2 classes and 1 colours"),
        ({"colours": [[0, 0, 999], [0, 0, 0]]}, "key colours.0.2"),
        ({"label": {}}, "key label: "),
    ],
)
def test_mistakes_in_a_description_are_named(root, keys, message):
    change(root, **keys)
    with pytest.raises(UsageError, match=message):
        looked_up(open_data(config_of(root, "custom")))


def test_image_that_stands_twice_in_a_description_is_named(root):
    path = root / "dataset.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"e": "north/e.png"', '"f": "north/e.png"'), encoding="utf-8")
    assert "dataset.json: key 'f' stands twice" in refused(root)


def test_description_that_is_no_json_is_named(root):
    (root / "dataset.json").write_text("{")
    assert "dataset.json: Invalid JSON" in refused(root)


def test_classes_of_the_configuration_rename_and_must_be_as_many(root):
    assert open_data(config_of(root, "custom", classes=["one", "two"])).classes == ("one", "two")
    assert "names 1 classes" in refused(root, classes=["one"])


def test_masks_of_unlabelled_images_are_found_where_pseudo_labels_are_judged_by_them(root):
    data = open_data(config_of(root, "custom", trainer={"epochs": 1, "pseudo_label_quality": True}))
    (other,) = set("abc") - set(ids(data.labelled))
    masks = {sample.id: sample.label for sample in data.unlabelled}
    assert masks == {"e": None, "f": None, other: root / "masks" / f"{other}.png"}


def test_fold_is_for_validation_and_the_other_masked_images_are_labelled(root):
    change(root, folds=[["a", "d"], ["b"], ["c"]])
    found = {}
    for fold in ("1/3", "2/3", "3/3"):
        data = looked_up(open_data(config_of(root, "custom", fold=fold)))
        found[fold] = ids(data.validation)
        assert len(data.labelled) == 2
        assert sorted(ids(data.validation) + ids(data.labelled) + ids(data.unlabelled)) == list("abcdef")
    assert found == {"1/3": ["a", "d"], "2/3": ["b"], "3/3": ["c"]}
    assert ids(open_data(config_of(root, "custom")).validation) == ["d"]


@pytest.mark.parametrize("fold", ["4/3", "1/2"])
def test_fold_that_the_description_does_not_have_is_refused(root, fold):
    change(root, folds=[["a", "d"], ["b"], ["c"]])
    assert f'key "fold": {fold}, but {root}/dataset.json has 3 folds' in refused(root, fold=fold)


@pytest.mark.parametrize("folds", [[["a", "b"], ["c"]], [["a", "b"], ["c", "d", "d"]], [["a", "b", "c"], ["d", "e"]]])
def test_folds_that_do_not_divide_the_masked_images_are_refused(root, folds):
    change(root, folds=folds)
    assert "has to be in one fold, and no other image" in refused(root)


def test_fold_of_a_data_set_without_a_description_is_refused(demo_set):
    assert "has no dataset.json, in which folds are" in refused(demo_set, fold="1/2")
