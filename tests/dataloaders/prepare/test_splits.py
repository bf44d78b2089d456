"""Split lists of other projects, as those write them."""

from pathlib import Path

import pytest

from dataloaders.prepare.__main__ import main

VOC_IDS = {"labelled": ["2007_000032", "2008_008121"], "unlabelled": ["2007_000039", "2011_003261", "2009_000001"]}


def write(folder: Path, labelled: str, unlabelled: str, line: str, ids=VOC_IDS) -> Path:
    folder.mkdir(parents=True)
    for name, kind in ((labelled, "labelled"), (unlabelled, "unlabelled")):
        (folder / name).write_text("\n".join(line.format(id=id_, city=id_.split("_")[0]) for id_ in ids[kind]))
    return folder


def run(source: Path, target: Path, *options: object) -> int:
    return main(["splits", "--from", str(source), "--to", str(target), *map(str, options)])


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "line"),
    [
        ("labeled.txt", "unlabeled.txt", "JPEGImages/{id}.jpg SegmentationClass/{id}.png"),  # UniMatch, ST++
        ("labeled.txt", "unlabeled.txt", "{id}"),  # U2PL
        ("train_aug_labeled_1-8.txt", "train_aug_unlabeled_1-8.txt", "{id}"),  # CPS
        ("train_aug_labeled_1-8.txt", "train_aug_unlabeled_1-8.txt", "/JPEGImages/{id}.jpg\t/masks/{id}.png"),
        ("2_train_supervised.txt", "2_train_unsupervised.txt", "{id}.jpg,{id}.png\r"),
    ],
)  # fmt: skip
def test_list_of_another_project_becomes_ours(tmp_path, capsys, labelled, unlabelled, line):
    source, target = write(tmp_path / "theirs", labelled, unlabelled, line), tmp_path / "voc_splits0"
    assert run(source, target) == 0
    said = capsys.readouterr().out
    assert f"2 labelled: {source / labelled}" in said
    assert "3 unlabelled" in said
    assert "not checked: whether validation images" in said
    assert (target / "2_train_supervised.txt").read_text().splitlines() == [
        "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png",
        "/JPEGImages/2008_008121.jpg /SegmentationClassAug/2008_008121.png",
    ]
    assert len((target / "2_train_unsupervised.txt").read_text().splitlines()) == 3
    assert run(source, target) == 0  # the same lists again change nothing


def test_list_of_cityscapes_becomes_ours(tmp_path, capsys):
    ids = {"labelled": ["aachen_000000_000019"], "unlabelled": ["bochum_000000_000313"]}
    line = "leftImg8bit/train/{city}/{id}_leftImg8bit.png gtFine/train/{city}/{id}_gtFine_labelTrainIds.png"
    source = write(tmp_path / "theirs", "labeled.txt", "unlabeled.txt", line, ids)
    assert run(source, tmp_path / "city_splits3") == 0
    assert "none in validation (the cities frankfurt" in capsys.readouterr().out
    assert (tmp_path / "city_splits3" / "1_train_supervised.txt").read_text() == (
        "images/train/aachen_000000_000019_leftImg8bit.png "
        "segmentation/train/aachen_000000_000019_gtFine_labelTrainIds.png\n"
    )
    ids["unlabelled"] = ["lindau_000000_000019"]
    wrong = write(tmp_path / "wrong", "labeled.txt", "unlabeled.txt", line, ids)
    assert run(wrong, tmp_path / "city_splits4") == 2
    assert "validation images: lindau_000000_000019" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "validation", "message"),
    [
        (["a", "b"], ["c", "a"], [], "both list a. Nothing is written"),
        (["a", "b"], ["c", "d"], ["d"], "these are validation images: d"),
        (["a", "b", "a"], ["c"], [], "lists a twice"),
        ([], ["c"], [], "lists no image"),
    ],
)
def test_split_that_mixes_images_is_refused(tmp_path, capsys, labelled, unlabelled, validation, message):
    source = write(
        tmp_path / "pascal" / "2",
        "labeled.txt",
        "unlabeled.txt",
        "{id}",
        {"labelled": labelled, "unlabelled": unlabelled},
    )
    (tmp_path / "pascal" / "val.txt").write_text("\n".join(validation or ["z"]))
    assert run(source, tmp_path / "voc_splits0") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "voc_splits0").exists()


def test_what_is_no_split_or_would_overwrite_one_is_refused(tmp_path, capsys):
    source = write(tmp_path / "theirs", "labeled.txt", "unlabeled.txt", "{id}")
    assert run(source, tmp_path / "lists") == 2
    assert "must end in voc_splits<number>" in capsys.readouterr().err
    (tmp_path / "voc_splits0").mkdir()
    (tmp_path / "voc_splits0" / "2_train_supervised.txt").write_text("/JPEGImages/other.jpg\n")
    assert run(source, tmp_path / "voc_splits0") == 2
    assert "is another list" in capsys.readouterr().err
    (source / "unlabeled.txt").unlink()
    assert run(source, tmp_path / "voc_splits1") == 2
    assert "holds labeled.txt" in capsys.readouterr().err
