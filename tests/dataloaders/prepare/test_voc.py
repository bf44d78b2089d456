"""The augmented PASCAL VOC set, made from miniature trees and archives."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataloaders.prepare.voc import prepare_voc
from tests.dataloaders.prepare import trees
from tests.dataloaders.prepare.trees import VocTree, pack_voc, snapshot, voc_tree
from utils.errors import UsageError

VOC = Path("VOCdevkit/VOC2012")


@pytest.fixture
def tree(tmp_path: Path) -> VocTree:
    return voc_tree(tmp_path / "voc")


def masks(root: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in (root / VOC / "SegmentationClassAug").glob("*"):
        with Image.open(path) as image:
            assert image.mode == "L"
            found[path.stem] = np.array(image)
    return found


def assert_masks(root: Path, tree: VocTree) -> None:
    found = masks(root)
    assert found.keys() == tree.masks.keys()
    for id_, mask in tree.masks.items():
        np.testing.assert_array_equal(found[id_], mask, err_msg=id_)


def test_masks_are_the_sources_pixel_by_pixel_and_vocs_own_win(tree: VocTree) -> None:
    report = prepare_voc(tree.folder)
    assert_masks(tree.folder, tree)
    assert dict(report.found) == {"train": len(tree.pool), "val": len(tree.val)}
    assert report.problems == []


def test_pixel_shares_are_those_of_the_masks(tree: VocTree) -> None:
    report = prepare_voc(tree.folder)
    pool = np.concatenate([tree.masks[id_].ravel() for id_ in tree.pool])
    np.testing.assert_array_equal(report.pixels["train"], np.bincount(pool, minlength=256))
    share = 100 * (pool == 1).sum() / (pool != 255).sum()
    assert f"aeroplane{share:23.2f} %" in report.text()


def test_nothing_of_the_users_is_touched(tree: VocTree) -> None:
    before = snapshot(tree.folder)
    prepare_voc(tree.folder)
    after = snapshot(tree.folder)
    assert before.items() <= after.items()
    assert all(name.startswith(f"{VOC}/SegmentationClassAug/") for name in after.keys() - before.keys())


def test_repeating_changes_nothing(tree: VocTree) -> None:
    first = prepare_voc(tree.folder)
    before = snapshot(tree.folder)
    second = prepare_voc(tree.folder)
    assert snapshot(tree.folder) == before
    assert first.actions == {"written": len(tree.masks)}
    assert second.actions == {"kept": len(tree.masks)}


def test_archives_give_what_the_trees_give(tree: VocTree, tmp_path: Path) -> None:
    downloads = pack_voc(tree, tmp_path / "downloads")
    root = tmp_path / "root"
    prepare_voc(root, [downloads])
    assert_masks(root, tree)
    assert (root / VOC / "JPEGImages" / f"{tree.val[0]}.jpg").read_bytes() == (
        tree.folder / VOC / "JPEGImages" / f"{tree.val[0]}.jpg"
    ).read_bytes()
    assert not (root / VOC / "Annotations").exists()
    before = snapshot(root)
    prepare_voc(root, [downloads / trees.VOC_ARCHIVE])
    assert snapshot(root) == before


def test_archives_in_the_root_are_found(tree: VocTree, tmp_path: Path) -> None:
    root = pack_voc(tree, tmp_path / "root")
    prepare_voc(root)
    assert_masks(root, tree)


def test_a_tree_elsewhere_is_linked(tree: VocTree, tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepare_voc(root, [tree.folder])
    assert_masks(root, tree)
    image = VOC / "JPEGImages" / f"{tree.train[0]}.jpg"
    assert (root / image).samefile(tree.folder / image)


def test_voc_and_sbd_may_lie_apart(tree: VocTree, tmp_path: Path) -> None:
    sbd = (tree.folder / "benchmark_RELEASE").rename(tmp_path / "elsewhere")
    prepare_voc(tmp_path / "root", [tree.folder, sbd])
    assert_masks(tmp_path / "root", tree)


def test_an_interrupted_extraction_of_sbd_goes_on(tree: VocTree, tmp_path: Path) -> None:
    root = pack_voc(tree, tmp_path / "root")
    (root / "benchmark_RELEASE/dataset/cls").mkdir(parents=True)
    (root / "benchmark_RELEASE/dataset/cls" / f"{tree.sbd_only[0]}.mat").write_bytes(b"MATLAB 5.0 MAT")
    prepare_voc(root)
    assert_masks(root, tree)


def test_without_sbd_vocs_masks_are_used_with_a_warning(tree: VocTree, tmp_path: Path) -> None:
    (tree.folder / "benchmark_RELEASE").rename(tmp_path / "gone")
    report = prepare_voc(tree.folder)
    assert masks(tree.folder).keys() == {*tree.train, *tree.val}
    assert "warning: SBD (benchmark.tgz) was not found" in report.text()
    assert report.problems == []


def test_masks_whose_image_is_not_there_are_left_out(tree: VocTree) -> None:
    (tree.folder / VOC / "JPEGImages" / f"{tree.sbd_only[0]}.jpg").unlink()
    report = prepare_voc(tree.folder)
    assert tree.sbd_only[0] not in masks(tree.folder)
    assert report.problems == []
    assert "warning: 1 masks are left out" in report.text()


def test_validation_never_gets_a_mask_of_sbd(tree: VocTree) -> None:
    mask = tree.folder / VOC / "SegmentationClass" / f"{tree.val[0]}.png"  # SBD has this one, too
    mask.unlink()
    report = prepare_voc(tree.folder)
    assert report.problems == [f"{mask}: missing"]
    assert tree.val[0] not in masks(tree.folder)


def test_a_broken_mask_is_made_anew(tree: VocTree) -> None:
    prepare_voc(tree.folder)
    broken = tree.folder / VOC / "SegmentationClassAug" / f"{tree.train[0]}.png"
    broken.write_bytes(broken.read_bytes()[:60])
    report = prepare_voc(tree.folder)
    assert report.actions == {"kept": len(tree.masks) - 1, "written": 1}
    assert_masks(tree.folder, tree)


def test_a_broken_source_is_named_and_the_others_are_done(tree: VocTree) -> None:
    source = tree.folder / "benchmark_RELEASE/dataset/cls" / f"{tree.sbd_only[0]}.mat"
    source.write_bytes(source.read_bytes()[:200])
    report = prepare_voc(tree.folder)
    assert report.problems == [f"{source}: is truncated"]
    assert len(masks(tree.folder)) == len(tree.masks) - 1


def test_a_mask_in_colours_is_refused(tree: VocTree) -> None:
    source = tree.folder / VOC / "SegmentationClass" / f"{tree.train[0]}.png"
    with Image.open(source) as image:
        colours = image.convert("RGB")
    colours.save(source)
    report = prepare_voc(tree.folder)
    assert report.problems == [f"{source}: is a picture of mode RGB, not a mask of class indices"]


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (np.full((30, 40), 21, np.uint8), "holds the indices 21, which are no class"),
        (np.zeros((40, 30), np.uint8), "has 30 x 40 pixels, its image 40 x 30"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tree: VocTree, mask: np.ndarray, why: str) -> None:
    source = tree.folder / VOC / "SegmentationClass" / f"{tree.train[0]}.png"
    Image.fromarray(mask).save(source)
    assert prepare_voc(tree.folder).problems == [f"{source}: {why}"]


@pytest.mark.parametrize("line", ["../../../escape", "/etc/passwd", "a/b", ".hidden"])
def test_a_list_with_paths_in_place_of_ids_is_refused(tree: VocTree, line: str) -> None:
    listing = tree.folder / "benchmark_RELEASE/dataset/train.txt"
    listing.write_text(f"{line}\n")
    with pytest.raises(UsageError, match=r"train.txt: .* is no image id"):
        prepare_voc(tree.folder)


def test_links_that_lead_nowhere_are_named_and_the_others_are_done(tree: VocTree, tmp_path: Path) -> None:
    images = tree.folder / VOC / "JPEGImages"
    (images / "loop.jpg").symlink_to("loop.jpg")
    (images / "nowhere.jpg").symlink_to("gone.jpg")
    report = prepare_voc(tmp_path / "root", [tree.folder])
    assert [problem.partition(": ")[0] for problem in report.problems] == [
        str(images / "loop.jpg"),
        str(images / "nowhere.jpg"),
    ]
    assert_masks(tmp_path / "root", tree)


def test_many_problems_are_cut_short_but_not_by_check(tree: VocTree) -> None:
    listing = tree.folder / VOC / "ImageSets/Segmentation/val.txt"
    listing.write_text(listing.read_text() + "".join(f"absent_{i}\n" for i in range(30)))
    assert "  and 10 more; --check lists them all" in prepare_voc(tree.folder).text()
    assert "absent_9.jpg: missing" in prepare_voc(tree.folder, check=True).text()


def test_spaces_letters_and_windows_line_ends(tmp_path: Path) -> None:
    tree = voc_tree(tmp_path / "größe 数据")
    for listing in tree.folder.rglob("*.txt"):
        listing.write_bytes(b"\xef\xbb\xbf" + listing.read_bytes().replace(b"\n", b"\r\n"))
    prepare_voc(tmp_path / "wurzel ü", [tree.folder])
    assert_masks(tmp_path / "wurzel ü", tree)


def test_no_voc_anywhere_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"VOC 2012 is not in .*VOCtrainval_11-May-2012.tar.*--download"):
        prepare_voc(tmp_path / "root", [tmp_path / "empty"])
    with pytest.raises(UsageError, match="this source does not exist"):
        prepare_voc(tmp_path / "root", [tmp_path / "nowhere"])
    assert not (tmp_path / "root").exists()


def test_all_cores_give_what_one_gives(tmp_path: Path) -> None:
    tree = voc_tree(tmp_path / "voc", train=30, val=10, sbd_only=30, size=(8, 10))
    report = prepare_voc(tree.folder, workers=2)
    assert_masks(tree.folder, tree)
    assert report.actions == {"written": 70}
