import pytest

from dataloaders.own.pairs import find_pairs
from utils.errors import UsageError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_masks_go_with_images_of_the_same_path_without_suffix(tmp_path):
    images = touch(tmp_path / "images", "a.jpg", "b.JPEG", "north/a.png", "c.tif", ".hidden.png", "notes.txt")
    masks = touch(tmp_path / "masks", "a.png", "b.gif", "north/a.bmp")
    pairs = find_pairs(images, masks)
    assert sorted(pairs.images) == ["a", "b", "c", "north__a"]
    assert {id_: path.relative_to(masks).as_posix() for id_, path in pairs.masks.items()} == {
        "a": "a.png", "b": "b.gif", "north__a": "north/a.bmp",
    }  # fmt: skip
    assert pairs.strays == []


@pytest.mark.parametrize("ending", ["_mask", "_gt", "_label", "_labels", "-mask", "_Mask", "_segmentation"])
def test_common_endings_of_mask_names_are_dropped(tmp_path, ending):
    pairs = find_pairs(touch(tmp_path / "i", "north/a.jpg"), touch(tmp_path / "m", f"north/a{ending}.png"))
    assert list(pairs.masks) == ["north__a"]


def test_name_of_an_image_that_ends_like_a_masks_is_taken_as_it_is(tmp_path):
    pairs = find_pairs(touch(tmp_path / "i", "face.png", "face_mask.png"), touch(tmp_path / "m", "face_mask.png"))
    assert list(pairs.masks) == ["face_mask"]


def test_images_and_masks_may_share_a_folder_or_lie_in_each_other(tmp_path):
    shared = touch(tmp_path / "shared", "a.jpg", "a_mask.png", "b.jpg")
    pairs = find_pairs(shared, shared)
    assert (sorted(pairs.images), list(pairs.masks)) == (["a", "b"], ["a"])
    outer = touch(tmp_path / "outer", "a.jpg", "b.jpg", "masks/a.png")
    pairs = find_pairs(outer, outer / "masks")
    assert (sorted(pairs.images), list(pairs.masks)) == (["a", "b"], ["a"])
    outer = touch(tmp_path / "other", "a.png", "images/a.jpg", "images/b.jpg")
    pairs = find_pairs(outer / "images", outer)
    assert (sorted(pairs.images), list(pairs.masks)) == (["a", "b"], ["a"])


def paired(tmp_path, images, masks):
    """Names of the masks by image, as ``find_pairs`` gives them."""
    pairs = find_pairs(touch(tmp_path / "i", *images), touch(tmp_path / "m", *masks))
    all_of = {id_: [path] for id_, path in pairs.masks.items()} | pairs.series
    return {id_: [path.relative_to(tmp_path / "m").as_posix() for path in found] for id_, found in all_of.items()}


NUMBERS = [f"{number:02d}" for number in range(1, 13)]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}_sat.jpg", "{}_mask.png"),
        ("{}.jpg", "{}.jpg.png"),
        ("Image_{}L.jpg", "Image_{}L_1stHO.png"),
        ("{}_training.tif", "{}_manual1.gif"),
        ("img_{}.png", "label_{}.png"),
        ("img{}.png", "gt{}.png"),
        ("s/a_{}_leftImg8bit.png", "s/a_{}_gtFine_labelTrainIds.png"),
        ("S-1.3.6.{}.7_high.jpg", "S-1.3.6.{}.7_high_mask.gif"),
        ("{}.jpg", "{}_json/label.png"),
        ("train/x{}.png", "train_labels/x{}_L.png"),
        ("benign ({}).png", "benign ({})_mask.png"),
        ("缺陷 {}.png", "缺陷 {}_标注.png"),
        ("{}.jpg", "SegmentationClass/{}.png"),
        ("{}.jpg", "default/{}.png"),
    ],
)
def test_masks_are_found_by_the_longest_part_that_their_names_share_with_the_images(tmp_path, image, mask):
    found = paired(tmp_path, map(image.format, NUMBERS), map(mask.format, NUMBERS[:8]))
    assert sorted(found.values()) == [[mask.format(number)] for number in NUMBERS[:8]]
    ids = {mask.format(number): image.format(number).rpartition(".")[0].replace("/", "__") for number in NUMBERS}
    assert {id_: [name] for name, id_ in ids.items() if [name] in found.values()} == found


def test_numbers_within_numbers_do_not_mix(tmp_path):
    images = [f"{number}.png" for number in range(1, 13)]
    assert paired(tmp_path, images, ["1.png", "11.png"]) == {"1": ["1.png"], "11": ["11.png"]}
    assert paired(tmp_path / "other", images, ["seg_2_1.png", "seg_3_1.png", "seg_12_1.png"]) == {
        "2": ["seg_2_1.png"], "3": ["seg_3_1.png"], "12": ["seg_12_1.png"],
    }  # fmt: skip


def test_images_of_one_name_are_told_apart_by_the_folders(tmp_path):
    images = [f"{part}/{number}.png" for part in ("train", "val") for number in range(4)]
    masks = [f"{part}_labels/{number}_L.png" for part in ("train", "val") for number in range(3)]
    found = paired(tmp_path, images, masks)
    assert found == {f"{mask.partition('_')[0]}__{mask[-7]}": [mask] for mask in masks}


@pytest.mark.parametrize("names", [["{}_mask.png", "{}_mask_1.png", "{}_mask_2.png"], ["{}_0.png", "{}_1.png"]])
def test_masks_that_differ_by_a_number_are_a_series(tmp_path, names):
    found = paired(tmp_path, ["a.png", "b.png", "c.png"], [name.format(id_) for id_ in "ab" for name in names])
    assert found == {id_: [name.format(id_) for name in names] for id_ in "ab"}


@pytest.mark.parametrize(
    "masks",
    [
        ["{}_1stHO.png", "{}_2ndHO.png"],
        ["{}_car.png", "{}_tree.png"],
        ["{}_labelIds.png", "{}_color.png"],
        ["x/{}.png", "y/{}.png"],
        ["{}.png", "{}.tif"],
        ["{}.png", "{}_color.png"],
    ],
)
def test_two_masks_of_one_image_that_are_no_series_are_refused(tmp_path, masks):
    with pytest.raises(UsageError, match=r"stand for the same image, \w\.jpg\. Move or rename"):
        paired(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], [mask.format(id_) for id_ in "ab" for mask in masks])


def folder_each(tmp_path, names):
    """What is found in a folder for each of three images, the last without masks, as data sets of instances have it."""
    for id_ in ("1a", "2b"):
        touch(tmp_path / id_, f"images/{id_}.png", *(f"masks/{name}.png" for name in names[id_]))
    return find_pairs(touch(tmp_path, "3c/images/3c.png"), tmp_path)


def test_masks_of_any_name_belong_to_the_image_whose_folder_is_beside_theirs(tmp_path):
    pairs = folder_each(tmp_path, {"1a": ["8f3e", "c01d", "77"], "2b": ["9b2a"]})
    assert [path.name for path in pairs.images.values()] == ["1a.png", "2b.png", "3c.png"]
    assert {id_: [path.stem for path in found] for id_, found in pairs.series.items()} == {
        "1a__images__1a": ["77", "8f3e", "c01d"]
    }
    assert pairs.masks["2b__images__2b"] == tmp_path / "2b/masks/9b2a.png"
    assert len(pairs.masks) == 2
    assert not pairs.strays


def test_masks_whose_names_recur_in_every_folder_may_be_classes_and_are_refused(tmp_path):
    numbered = {id_: ["mask_1", "mask_2"] for id_ in ("1a", "2b")}
    assert len(folder_each(tmp_path / "numbered", numbered).series) == 2
    with pytest.raises(UsageError, match=r"names recur in other folders \(car, road\)\. Is each a class\?.*make one"):
        folder_each(tmp_path / "classes", {id_: ["car", "road"] for id_ in ("1a", "2b")})


def test_labelmes_folders_of_exported_pictures_give_their_label(tmp_path):
    masks = [f"{id_}_json/{name}.png" for id_ in "ab" for name in ("img", "label", "label_viz")]
    assert paired(tmp_path, ["a.jpg", "b.jpg"], masks) == {id_: [f"{id_}_json/label.png"] for id_ in "ab"}


def test_cvats_folders_of_other_pictures_are_passed_over(tmp_path):
    folders = ("SegmentationClass", "SegmentationObject", "JPEGImages")
    masks = [f"{folder}/{id_}.png" for id_ in "ab" for folder in folders]
    assert paired(tmp_path, ["a.jpg", "b.jpg"], masks) == {id_: [f"SegmentationClass/{id_}.png"] for id_ in "ab"}


@pytest.mark.parametrize("mask", ["{}_1stHO.png", "{}_mask.png", "{}.png"])
def test_masks_are_told_from_the_images_of_their_folder(tmp_path, mask):
    shared = touch(tmp_path / "shared", *(f"{id_}L.jpg" for id_ in "abcd"), *(mask.format(f"{id_}L") for id_ in "ab"))
    if mask == "{}.png":
        (shared / "cL.jpg").rename(shared / "eL.jpg")
    pairs = find_pairs(shared, shared)
    assert (len(pairs.images), sorted(pairs.masks)) == (4, ["aL", "bL"])


def test_masks_without_an_image_are_strays(tmp_path):
    pairs = find_pairs(touch(tmp_path / "i", "a.jpg"), touch(tmp_path / "m", "a.png", "zebra.png"))
    assert [path.name for path in pairs.strays] == ["zebra.png"]


@pytest.mark.parametrize(
    ("images", "masks", "parts"),
    [
        ([], ["a.png"], ["--init_data", "holds no image"]),
        (["a.jpg"], [], ["--masks", "holds no mask"]),
        (["a.jpg"], ["b.png"], ["none of its 1 masks", "called a.jpg", "masks b.png"]),
        (["a.jpg", "a.png"], ["a.png"], ["a.jpg", "a.png", "the same image, a"]),
        (["n/a.jpg", "n__a.jpg"], ["a.png"], ["the same image, n__a"]),
        (["a.jpg"], ["a.png", "a_mask.png"], ["a.png", "a_mask.png", "the same image, a"]),
    ],
)
def test_what_cannot_be_paired_is_named(tmp_path, images, masks, parts):
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    with pytest.raises(UsageError) as error:
        find_pairs(touch(tmp_path / "i", *images), touch(tmp_path / "m", *masks))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["caf\udce9.png", "a\nb.png", "a\x1b[2Jb.png"], ids=["Latin-1", "line end", "control"])
@pytest.mark.parametrize("where", ["i", "m", "i/folder"])
def test_names_that_no_list_can_hold_are_refused_together(tmp_path, name, where):
    touch(tmp_path / "i", "a.png")
    touch(tmp_path / "m", "a.png")
    touch(tmp_path / where, name, f"b{name}")
    with pytest.raises(UsageError, match=r"2 names cannot be used: '.*convmv -r -f latin1") as error:
        find_pairs(tmp_path / "i", tmp_path / "m")
    assert str(error.value).isprintable()


def test_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="--masks .*nowhere"):
        find_pairs(touch(tmp_path / "i", "a.jpg"), tmp_path / "nowhere")
