from pathlib import Path

import pytest

from dataloaders.sets.description import Sample, SegmentationData, find_root
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


def data_of(classes=("a", "b"), labelled=()):
    return SegmentationData(tuple(classes), None, tuple(labelled), (), ())


@pytest.mark.parametrize(
    ("classes", "what"),
    [((), "0 classes"), (("a",), "1 classes"), (map(str, range(256)), "256 classes"), (("a", "b", "a"), "2 .* 'a'")],
)
def test_classes_that_no_run_can_have_are_refused(classes, what):
    with pytest.raises(UsageError, match=what):
        data_of(classes)
    assert len(data_of(map(str, range(255))).classes) == 255


def test_samples_whose_outputs_would_have_one_name_are_refused():
    one = Sample("x", Path("a/x.jpg"), Path("m/x.png"))
    data_of(labelled=(one, one, Sample("y", Path("a/y.jpg"), Path("m/y.png"))))
    for other in (Sample("x", Path("b/x.jpg"), Path("m/z.png")), Sample("z", Path("a/z.jpg"), Path("n/x.png"))):
        with pytest.raises(UsageError, match="would be written twice"):
            data_of(labelled=(one, other))
