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


def test_masks_without_an_image_are_strays(tmp_path):
    pairs = find_pairs(touch(tmp_path / "i", "a.jpg"), touch(tmp_path / "m", "a.png", "zebra.png"))
    assert [path.name for path in pairs.strays] == ["zebra.png"]


@pytest.mark.parametrize(
    ("images", "masks", "parts"),
    [
        ([], ["a.png"], ["--init_data", "holds no image"]),
        (["a.jpg"], [], ["--masks", "holds no mask"]),
        (["a.jpg"], ["b.png"], ["none of its 1 masks", "b.png", "b.*"]),
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
