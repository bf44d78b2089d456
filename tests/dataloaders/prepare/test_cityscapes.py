"""Cityscapes, laid out from miniature trees and archives."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataloaders.prepare.cityscapes import TRAIN_IDS, prepare_cityscapes
from tests.dataloaders.prepare.trees import (
    PUBLIC_TRAIN_IDS,
    CityscapesTree,
    cityscapes_tree,
    pack_cityscapes,
    snapshot,
)
from utils.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path) -> CityscapesTree:
    return cityscapes_tree(tmp_path / "city")


def assert_prepared(root: Path, tree: CityscapesTree) -> None:
    """Every image has the bytes of the download, every mask the trainIds; there are no others."""
    for split, stems in (("train", tree.train), ("val", tree.val)):
        for stem in stems:
            city = stem.partition("_")[0]
            source = tree.folder / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            flat = split == "train"
            image = root / ("images/train" if flat else f"leftImg8bit/val/{city}") / source.name
            mask = root / ("segmentation/train" if flat else f"gtFine/val/{city}")
            assert image.read_bytes() == source.read_bytes()
            np.testing.assert_array_equal(
                np.array(Image.open(mask / f"{stem}_gtFine_labelTrainIds.png")), tree.masks[stem]
            )
    assert len(list((root / "images/train").iterdir())) == len(tree.train)
    assert len(list((root / "segmentation/train").iterdir())) == len(tree.train)


def label_file(tree: CityscapesTree, split: str, stem: str, kind: str) -> Path:
    return tree.folder / "gtFine" / split / stem.partition("_")[0] / f"{stem}_gtFine_{kind}.png"


def test_table_is_the_public_one() -> None:
    assert {id_: int(train) for id_, train in enumerate(TRAIN_IDS) if train != 255} == PUBLIC_TRAIN_IDS


def test_tree_in_the_root_is_flattened_with_train_ids(tree: CityscapesTree) -> None:
    before = snapshot(tree.folder)
    report = prepare_cityscapes(tree.folder)
    assert_prepared(tree.folder, tree)
    assert dict(report.found) == {"train": 3, "val": 2}
    assert report.problems == []
    assert before.items() <= snapshot(tree.folder).items()


def test_tree_elsewhere_is_linked_and_left_alone(tree: CityscapesTree, tmp_path: Path) -> None:
    before = snapshot(tree.folder)
    root = tmp_path / "root"
    prepare_cityscapes(root, [tree.folder])
    assert_prepared(root, tree)
    assert snapshot(tree.folder) == before
    for image in (*root.glob("images/train/*"), *root.glob("leftImg8bit/val/*/*")):
        assert image.stat().st_nlink == 2


def test_archives_give_what_the_trees_give(tree: CityscapesTree, tmp_path: Path) -> None:
    downloads = pack_cityscapes(tree, tmp_path / "downloads")
    root = tmp_path / "root"
    prepare_cityscapes(root, [downloads])
    assert_prepared(root, tree)
    assert not (root / "leftImg8bit/test").exists()
    assert not list(root.rglob("*_color.png"))
    before = snapshot(root)
    prepare_cityscapes(root, [downloads])
    assert snapshot(root) == before


def test_images_and_labels_may_lie_apart(tree: CityscapesTree, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tree.folder / "gtFine").rename(tmp_path / "labels" / "gtFine")
    prepare_cityscapes(tmp_path / "root", [tree.folder, tmp_path / "labels"])
    assert_prepared(tmp_path / "root", tree)


def test_repeating_changes_nothing(tree: CityscapesTree) -> None:
    prepare_cityscapes(tree.folder)
    before = snapshot(tree.folder)
    report = prepare_cityscapes(tree.folder)
    assert snapshot(tree.folder) == before
    assert report.actions == {"images kept": 5, "masks kept": 5}


def test_the_flat_folders_alone_are_enough(tree: CityscapesTree, tmp_path: Path) -> None:
    prepare_cityscapes(tree.folder)
    for kind in ("leftImg8bit", "gtFine"):
        (tree.folder / kind / "train").rename(tmp_path / kind)
    assert prepare_cityscapes(tree.folder).actions == {"images kept": 5, "masks kept": 5}
    image = tree.folder / "images/train" / f"{tree.train[0]}_leftImg8bit.png"
    image.unlink()
    assert prepare_cityscapes(tree.folder).problems == [f"{image}: missing"]


def test_copies_where_the_file_system_cannot_link(
    tree: CityscapesTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    root = tmp_path / "root"
    report = prepare_cityscapes(root, [tree.folder])
    assert_prepared(root, tree)
    assert report.actions == {"images copied": 5, "masks written": 5}
    before = snapshot(root)
    prepare_cityscapes(root, [tree.folder])
    assert snapshot(root) == before


def test_train_ids_that_are_there_are_used(tree: CityscapesTree, tmp_path: Path) -> None:
    stem = tree.train[0]
    own = label_file(tree, "train", stem, "labelTrainIds")
    Image.fromarray(np.full_like(tree.masks[stem], 18)).save(own)
    prepare_cityscapes(tmp_path / "root", [tree.folder])
    assert (tmp_path / "root/segmentation/train" / own.name).samefile(own)


def test_broken_train_ids_are_made_from_label_ids(tree: CityscapesTree) -> None:
    for split, stem in (("train", tree.train[0]), ("val", tree.val[0])):
        label_file(tree, split, stem, "labelTrainIds").write_bytes(b"\x89PNG\r\n\x1a\n")
    report = prepare_cityscapes(tree.folder)
    assert report.problems == []
    assert_prepared(tree.folder, tree)


def test_a_linked_original_survives_the_mending_of_its_link(tree: CityscapesTree, tmp_path: Path) -> None:
    stem = tree.train[0]
    original = label_file(tree, "train", stem, "labelTrainIds")
    Image.fromarray(np.full_like(tree.masks[stem], 99)).save(original)  # no trainIds
    target = tmp_path / "root/segmentation/train" / original.name
    target.parent.mkdir(parents=True)
    os.link(original, target)
    before = original.read_bytes()
    prepare_cityscapes(tmp_path / "root", [tree.folder])
    assert original.read_bytes() == before
    assert_prepared(tmp_path / "root", tree)


def test_a_symbolic_link_gives_a_link_to_the_file(tree: CityscapesTree, tmp_path: Path) -> None:
    image = next((tree.folder / "leftImg8bit/train").glob("*/*"))
    image.rename(tmp_path / "moved.png")
    image.symlink_to(os.path.relpath(tmp_path / "moved.png", image.parent))
    prepare_cityscapes(tmp_path / "root", [tree.folder])
    assert (tmp_path / "root/images/train" / image.name).is_file()
    assert not (tmp_path / "root/images/train" / image.name).is_symlink()
    assert_prepared(tmp_path / "root", tree)


def test_a_half_copied_image_is_brought_anew_and_a_users_own_is_kept(tree: CityscapesTree) -> None:
    half, own = (next(tree.folder.glob(f"leftImg8bit/train/*/{stem}*")) for stem in tree.train[:2])
    flat = tree.folder / "images/train"
    flat.mkdir(parents=True)
    (flat / half.name).write_bytes(half.read_bytes()[:100])
    Image.new("RGB", (48, 24)).save(flat / own.name)
    mine = (flat / own.name).read_bytes()
    assert prepare_cityscapes(tree.folder).problems == []
    assert (flat / half.name).read_bytes() == half.read_bytes()
    assert (flat / own.name).read_bytes() == mine


def test_an_image_without_label_and_a_bad_label_are_named(tree: CityscapesTree) -> None:
    absent, bad = (label_file(tree, "train", stem, "labelIds") for stem in tree.train[:2])
    absent.unlink()
    Image.fromarray(np.full((24, 48), 40, np.uint8)).save(bad)
    report = prepare_cityscapes(tree.folder)
    target = tree.folder / "segmentation/train" / f"{tree.train[0]}_gtFine_labelTrainIds.png"
    assert report.problems == [f"{target}: missing", f"{bad}: holds the indices 40, which are no class"]
    assert dict(report.found) == {"train": 1, "val": 2}


def test_no_cityscapes_anywhere_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cityscapes is not in .*leftImg8bit_trainvaltest.zip"):
        prepare_cityscapes(tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_uncompressed_training_files_have_the_same_pixels_and_leave_the_download_alone(
    tree: CityscapesTree, tmp_path: Path
) -> None:
    before, root = snapshot(tree.folder), tmp_path / "root"
    report = prepare_cityscapes(root, [tree.folder], uncompressed=True)
    assert report.problems == []
    assert report.actions["images uncompressed"] == report.actions["masks uncompressed"] == len(tree.train)
    for stem in tree.train:
        image = root / "images/train" / f"{stem}_leftImg8bit.png"
        source = tree.folder / "leftImg8bit/train" / stem.partition("_")[0] / image.name
        mask = root / "segmentation/train" / f"{stem}_gtFine_labelTrainIds.png"
        np.testing.assert_array_equal(np.array(Image.open(image)), np.array(Image.open(source)))
        np.testing.assert_array_equal(np.array(Image.open(mask)), tree.masks[stem])
        for path in (image, mask):
            assert path.stat().st_size > np.array(Image.open(path)).nbytes
    assert snapshot(tree.folder) == before
    assert len(list((root / "leftImg8bit/val").glob("*/*.png"))) == len(tree.val)


def test_files_that_are_uncompressed_are_kept_by_any_later_run(tree: CityscapesTree, tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepare_cityscapes(root, [tree.folder], uncompressed=True)
    before = snapshot(root)
    for uncompressed in (True, False):
        report = prepare_cityscapes(root, [tree.folder], uncompressed=uncompressed)
        assert report.actions == {"images kept": 5, "masks kept": 5}
        assert snapshot(root) == before


def test_damaged_picture_is_named_instead_of_stored_uncompressed(tree: CityscapesTree, tmp_path: Path) -> None:
    stem = tree.train[0]
    source = tree.folder / "leftImg8bit/train" / stem.partition("_")[0] / f"{stem}_leftImg8bit.png"
    source.write_bytes(source.read_bytes()[:-40])
    report = prepare_cityscapes(tmp_path / "root", [tree.folder], uncompressed=True)
    assert len(report.problems) == 1
    assert f"{stem}_leftImg8bit.png: unreadable" in report.problems[0]
