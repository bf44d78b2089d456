from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataloaders.reading import IGNORE
from dataloaders.sets.description import LazySamples, Sample, find_root
from tests.dataloaders.miniature import data_of, save_turned, write_image, write_mask
from utils.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("named", "there"), [("dataset", "datasets"), ("datasets", "dataset")])
def test_dataset_and_datasets_both_find_the_one_that_exists(here, named, there):
    (here / there / "voc").mkdir(parents=True)
    found = find_root(f"./{named}/voc", "voc")
    assert found.resolve() == here / there / "voc"


def test_folder_that_is_named_comes_first(here):
    (here / "dataset" / "voc").mkdir(parents=True)
    (here / "datasets" / "voc").mkdir(parents=True)
    assert find_root("datasets/voc", "voc").resolve() == here / "datasets" / "voc"


def test_only_the_part_that_differs_is_exchanged(here):
    (here / "datasets" / "dataset" / "x").mkdir(parents=True)
    assert find_root("dataset/dataset/x", "custom").resolve() == here / "datasets" / "dataset" / "x"


def test_other_folders_of_like_names_are_not_taken(here):
    (here / "my_datasets" / "voc").mkdir(parents=True)
    with pytest.raises(UsageError):
        find_root("my_dataset/voc", "voc")


def test_missing_folder_is_named_with_the_readme_and_the_key(here):
    (here / "dataset").mkdir()
    (here / "dataset" / "voc").write_text("a file, no folder")
    with pytest.raises(UsageError) as error:
        find_root("dataset/voc", "voc")
    for part in ("data_dir dataset/voc", 'README, section "Data"', "--set data_dir="):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("classes", "what"),
    [((), "0 classes"), (("a",), "1 classes"), (map(str, range(256)), "256 classes"), (("a", "b", "a"), "2 .* 'a'")],
)
def test_classes_that_no_run_can_have_are_refused(classes, what):
    with pytest.raises(UsageError, match=what):
        data_of(classes=classes)
    assert len(data_of(classes=map(str, range(255))).classes) == 255


def test_samples_whose_outputs_would_have_one_name_are_refused():
    one = Sample("x", Path("a/x.jpg"), Path("m/x.png"))
    data_of(labelled=(one, Sample("y", Path("a/y.jpg"), Path("m/y.png"))))
    for other in (Sample("x", Path("b/x.jpg"), Path("m/z.png")), Sample("z", Path("a/z.jpg"), Path("n/x.png"))):
        with pytest.raises(UsageError, match="would be written twice"):
            data_of(labelled=(one, other))


A, B = Sample("a", Path("a.jpg"), Path("a.png")), Sample("b", Path("b.jpg"), Path("b.png"))


@pytest.mark.parametrize("split", ["labelled", "unlabelled", "validation"])
def test_image_that_stands_twice_in_a_list_is_refused(split):
    lazy = replace(data_of(), **{split: LazySamples(lambda: (A, B, A))})
    with pytest.raises(UsageError, match="more than once"):
        len(getattr(lazy, split))
    with pytest.raises(UsageError, match=rf"{split} images: a\.jpg stands there more than once"):
        data_of(**{split: (A, B, A)})
    with pytest.raises(UsageError, match=rf"{split} images: a\.jpg stands"):  # under another id
        data_of(**{split: (A, Sample("c", A.image))})


@pytest.mark.parametrize("split", ["labelled", "validation"])
def test_mask_of_two_images_is_refused(split):
    with pytest.raises(UsageError, match=rf"masks of the {split} images: a\.png stands there more than once"):
        data_of(**{split: (A, Sample("c", Path("c.jpg"), A.label))})


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\u202eb", "a\x85", " ", "caf\udce9", "a\0"])
def test_name_that_cannot_be_shown_is_refused_and_not_repeated_as_it_is(name):
    for wrong in ({"classes": ("road", name)}, {"unlabelled": (Sample(name, Path("x.jpg")),)}):
        with pytest.raises(UsageError, match="this name cannot be used") as error:
            data_of(**wrong)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "name", ["größe", "道路", "раз два", "$x$", "\u0645\u06cc\u200c\u062e", "a\u3000b", "👩\u200d🌾"]
)
def test_names_of_any_script_are_taken(name):
    assert name in data_of(classes=("road", name), unlabelled=(Sample(name, Path("x.jpg")),)).classes


@pytest.mark.parametrize("size", [(4, 6), (6, 4)])
def test_mask_says_whether_its_image_is_turned(tmp_path, size):
    image = save_turned(tmp_path / "image.jpg", (4, 6))
    image, mask = data_of().read_pair(Sample("image", image, write_mask(tmp_path / "mask.png", 1, size)))
    assert image.shape[:2] == mask.shape == size


def test_mask_of_another_size_names_both_files(tmp_path):
    image = save_turned(tmp_path / "image.jpg", (4, 6))
    with pytest.raises(UsageError, match=r"mask\.png: is 4 x 4 pixels, but its image .*image\.jpg is 4 x 6"):
        data_of().read_pair(Sample("image", image, write_mask(tmp_path / "mask.png", 1, (4, 4))))


def test_masks_are_read_with_the_classes_the_colours_and_the_ignored_value_of_the_data_set(tmp_path):
    palette = np.zeros((256, 3), np.uint8)
    palette[[0, 1, 255]] = [(9, 9, 9), (1, 2, 3), (7, 0, 7)]
    write_image(tmp_path / "colours.png", [[(1, 2, 3), (7, 0, 7)]])
    data = data_of(palette=palette, ignore_index=2, classes=("ground", "tree"))
    assert data.read_mask(tmp_path / "colours.png").tolist() == [[1, IGNORE]]
    assert data.read_mask(write_mask(tmp_path / "indices.png", 2, (1, 1))).tolist() == [[IGNORE]]
    with pytest.raises(UsageError, match="label id 3"):
        data.read_mask(write_mask(tmp_path / "other.png", 3))
