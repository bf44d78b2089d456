import pytest

from dataloaders.own.split import split_masked
from utils.errors import UsageError


def images(count: int, classes=frozenset({0, 1})) -> dict[str, set[int]]:
    return {f"{number:03d}": set(classes) for number in range(count)}


def test_a_fifth_is_for_validation_the_rest_is_labelled():
    split = split_masked(images(50))
    assert (len(split.validation), len(split.labelled), split.spare) == (10, 40, [])
    assert sorted(split.validation + split.labelled) == sorted(images(50))


def test_split_follows_from_the_ids_alone():
    ids = images(50)
    assert split_masked(ids) == split_masked(dict(reversed(ids.items())))


@pytest.mark.parametrize("rare", [("003", "004"), ("017", "031"), ("048", "049")])
def test_class_of_two_images_is_in_both_splits(rare):
    classes = images(50)
    for id_ in rare:
        classes[id_] = {0, 1, 2}
    split = split_masked(classes)
    assert len(set(rare) & set(split.validation)) == 1
    assert len(set(rare) & set(split.labelled)) == 1


@pytest.mark.parametrize("rare", ["003", "017", "048"])
def test_class_of_one_image_is_for_training(rare):
    assert rare in split_masked({**images(50), rare: {0, 1, 2}}).labelled


def test_every_image_the_only_one_of_a_class_still_gives_a_validation_split():
    split = split_masked({str(number): {number} for number in range(10)})
    assert (len(split.validation), len(split.labelled)) == (2, 8)


def test_fewer_labelled_images_still_cover_the_classes():
    classes = images(50)
    for rare, ids in ((2, ("003", "004")), (3, ("040", "041"))):
        for id_ in ids:
            classes[id_] = classes[id_] | {rare}
    split = split_masked(classes, n_labelled=4)
    assert set.union(*(classes[id_] for id_ in split.labelled)) == {0, 1, 2, 3}
    assert (len(split.labelled), len(split.spare)) == (4, 36)


@pytest.mark.parametrize("folder", ["val", "Valid", "validation"])
def test_a_validation_folder_is_the_validation_split(folder):
    classes = images(9) | {f"{folder}__a": {0}, f"{folder}__b": {1}}
    split = split_masked(classes)
    assert split.validation == [f"{folder}__a", f"{folder}__b"]
    assert split.by_folder
    assert not split_masked(images(9)).by_folder


def test_too_few_masks_are_refused():
    with pytest.raises(UsageError, match="only 3 images have masks"):
        split_masked(images(3))
    with pytest.raises(UsageError, match="--labelled 9 asks for more"):
        split_masked(images(10), n_labelled=9)
    with pytest.raises(UsageError, match="1 masks are left for training"):
        split_masked({"a": {0, 1}, "val__b": {0, 1}})


@pytest.mark.parametrize(("count", "n_folds", "sizes"), [(23, 5, {4, 5}), (20, 5, {4}), (6, 3, {2}), (4, 4, {1})])
def test_folds_hold_every_image_once_and_the_first_is_for_validation(count, n_folds, sizes):
    split = split_masked(images(count), n_folds=n_folds)
    assert {len(fold) for fold in split.folds} == sizes
    assert sorted(sum(split.folds, [])) == sorted(images(count))
    assert split.validation == split.folds[0]
    assert len(split.validation) == max(sizes)
    assert sorted(split.labelled + split.validation) == sorted(images(count))
    assert split == split_masked(dict(reversed(images(count).items())), n_folds=n_folds)


@pytest.mark.parametrize("rare", [("003", "004", "005"), ("017", "031", "032"), ("047", "048", "049")])
def test_folds_share_the_images_of_a_rare_class(rare):
    classes = images(50)
    classes |= {id_: {0, 1, 2} for id_ in rare}
    classes |= {"000": {0, 1, 2, 3}, "001": {0, 1, 3}}  # seldom at once with the other
    folds = split_masked(classes, n_folds=5).folds
    for class_, n_images in ((2, 4), (3, 2)):
        assert sum(any(class_ in classes[id_] for id_ in fold) for fold in folds) == n_images


def test_folds_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="--folds 6: 5 images have masks"):
        split_masked(images(5), n_folds=6)
    with pytest.raises(UsageError, match="--folds 2: 3 images have masks"):
        split_masked(images(3), n_folds=2)
    with pytest.raises(UsageError, match="--folds: the folder val says which images"):
        split_masked({**images(9), "val__a": {0, 1}}, n_folds=3)
