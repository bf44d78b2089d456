import pytest

from dataloaders.sets import cityscapes
from dataloaders.sets.cityscapes import open_cityscapes
from tests.dataloaders.miniature import config_of, ids, looked_up, write_lines
from utils.errors import UsageError
from utils.palette import CITYSCAPES_COLOURS

TRAIN = ["aachen_000000_000019", "bochum_000000_000313", "ulm_000000_000019", "ulm_000001_000019"]
IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelTrainIds.png"


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture(autouse=True)
def lists(tmp_path, monkeypatch):
    monkeypatch.setattr(cityscapes, "LISTS_DIR", tmp_path / "lists")
    return tmp_path / "lists" / "city_splits0"


@pytest.fixture
def root(tmp_path):
    """Four flat training images with masks, and a validation image in each of two cities."""
    root = tmp_path / "cityscapes"
    for key in TRAIN:
        touch(root / "images/train" / (key + IMAGE), root / "segmentation/train" / (key + MASK))
    for city, key in (("munster", "munster_000000_000019"), ("lindau", "lindau_000000_000019")):
        touch(root / "leftImg8bit/val" / city / (key + IMAGE), root / "gtFine/val" / city / (key + MASK))
        touch(root / "gtFine/val" / city / f"{key}_gtFine_labelIds.png")
    return root


def test_masks_of_training_images_lie_under_their_names(root):
    data = open_cityscapes(config_of(root, "cityscapes"))
    assert len(data.labelled) == 2
    assert sorted(ids(data.labelled) + ids(data.unlabelled)) == [f"{key}_leftImg8bit" for key in TRAIN]
    assert all(sample.label is None for sample in data.unlabelled)
    for sample in data.labelled:
        key = sample.id.removesuffix("_leftImg8bit")
        assert sample.image == root / "images/train" / (key + IMAGE)
        assert sample.label == root / "segmentation/train" / (key + MASK)


def test_validation_pairs_images_and_masks_city_by_city(root):
    data = open_cityscapes(config_of(root, "cityscapes"))
    assert [(sample.image.parent.name, sample.label.parent.name) for sample in data.validation] == [
        ("lindau", "lindau"), ("munster", "munster"),
    ]  # fmt: skip
    assert data.validation[0].label == root / "gtFine/val/lindau" / f"lindau_000000_000019{MASK}"
    assert data.validation[0].image == root / "leftImg8bit/val/lindau" / f"lindau_000000_000019{IMAGE}"


def test_cityscapes_has_19_classes_and_its_colours(root):
    data = open_cityscapes(config_of(root, "cityscapes"))
    assert (len(data.classes), data.classes[0], data.classes[18]) == (19, "road", "bicycle")
    assert tuple(map(tuple, data.palette[:19].tolist())) == CITYSCAPES_COLOURS


def test_unlabelled_images_need_no_mask_and_a_labelled_one_without_is_named(root):
    config = config_of(root, "cityscapes")
    data = open_cityscapes(config)
    masks = root / "segmentation/train"
    for sample in data.unlabelled:
        (masks / (sample.id.removesuffix("_leftImg8bit") + MASK)).unlink()
    assert open_cityscapes(config).unlabelled == data.unlabelled
    data.labelled[1].label.unlink()
    with pytest.raises(UsageError) as error:
        looked_up(open_cityscapes(config))
    assert str(error.value).startswith(f"{data.labelled[1].label}: ")
    assert "python3 -m dataloaders.prepare cityscapes" in str(error.value)


def test_lists_of_the_original_are_used_where_they_are(root, lists):
    a, b, c, _ = TRAIN
    write_lines(lists / "2_train_supervised.txt", *(f"images/train/{key}{IMAGE} segmentation/train/{key}{MASK}"
                                                    for key in (c, a)))  # fmt: skip
    write_lines(lists / "2_train_unsupervised.txt", f"images/train/{b}{IMAGE} segmentation/train/gone{MASK}")
    key = "munster/munster_000000_000019"
    write_lines(lists / "val.txt", f"leftImg8bit/val/{key}{IMAGE} gtFine/val/{key}{MASK}")
    data = open_cityscapes(config_of(root, "cityscapes"))
    assert ids(data.labelled) == [f"{c}_leftImg8bit", f"{a}_leftImg8bit"]
    assert ids(data.unlabelled) == [f"{b}_leftImg8bit"]
    assert ids(data.validation) == ["munster_000000_000019_leftImg8bit"]


@pytest.mark.parametrize("folder", ["images/train", "leftImg8bit/val"])
def test_place_without_images_is_named_with_the_way_to_them(root, folder):
    (root / folder).rename(root / "elsewhere")
    with pytest.raises(UsageError) as error:
        looked_up(open_cityscapes(config_of(root, "cityscapes")))
    assert str(error.value).startswith(str(root / folder))
    assert "README" in str(error.value)


def test_validation_image_without_a_mask_is_named(root):
    mask = root / "gtFine/val/lindau" / f"lindau_000000_000019{MASK}"
    mask.unlink()
    with pytest.raises(UsageError) as error:
        looked_up(open_cityscapes(config_of(root, "cityscapes")))
    assert str(error.value).startswith(f"{mask}: ")


def test_masks_of_unlabelled_images_are_found_where_pseudo_labels_are_judged_by_them(root):
    config = config_of(root, "cityscapes", trainer={"epochs": 1, "pseudo_label_quality": True})
    first, second = open_cityscapes(config).unlabelled
    masks = root / "segmentation/train"
    (masks / (second.id.removesuffix("_leftImg8bit") + MASK)).unlink()
    expected = [masks / (first.id.removesuffix("_leftImg8bit") + MASK), None]
    assert [sample.label for sample in open_cityscapes(config).unlabelled] == expected
