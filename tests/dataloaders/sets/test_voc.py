import pytest

from dataloaders.sets import voc
from dataloaders.sets.voc import open_custom, open_voc
from tests.dataloaders.miniature import config_of, ids, looked_up, write_lines
from utils.errors import UsageError
from utils.palette import voc_palette


def make(root, folder, suffix, names):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / f"{name}{suffix}").touch()


@pytest.fixture(autouse=True)
def lists(tmp_path, monkeypatch):
    """The folder in which list files of VOC are looked for: not the project's own, where a user may have put some."""
    monkeypatch.setattr(voc, "LISTS_DIR", tmp_path / "lists")
    return tmp_path / "lists" / "voc_splits0"


@pytest.fixture
def voc_root(tmp_path):
    """Images a to f; the augmented set has masks of all but f, the first release of c and d; validation is c."""
    devkit = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    make(devkit, "JPEGImages", ".jpg", "abcdef")
    make(devkit, "SegmentationClassAug", ".png", "abcde")
    make(devkit, "SegmentationClass", ".png", "cd")
    write_lines(devkit / "ImageSets" / "Segmentation" / "val.txt", "c")
    write_lines(devkit / "ImageSets" / "Segmentation" / "train.txt", "d")
    return tmp_path / "data"


def test_voc_pool_is_every_mask_of_the_augmented_set_that_is_not_validation(voc_root):
    data = open_voc(config_of(voc_root, "voc"))
    assert len(data.labelled) == 2
    assert sorted(ids(data.labelled) + ids(data.unlabelled)) == ["a", "b", "d", "e"]
    assert all(sample.label is None for sample in data.unlabelled)
    devkit = voc_root / "VOCdevkit" / "VOC2012"
    for sample in (*data.labelled, *data.validation):
        assert sample.image == devkit / "JPEGImages" / f"{sample.id}.jpg"
        assert sample.label == devkit / "SegmentationClassAug" / f"{sample.id}.png"


def test_voc_validation_is_val_txt_in_its_order(voc_root):
    path = voc_root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    write_lines(path, "d", "a")
    assert ids(open_voc(config_of(voc_root, "voc")).validation) == ["d", "a"]


def test_voc_has_21_classes_in_its_order_and_its_colours(voc_root):
    data = open_voc(config_of(voc_root, "voc"))
    assert (len(data.classes), data.classes[0], data.classes[15]) == (21, "background", "person")
    assert (data.palette == voc_palette()).all()


def test_voc_lists_of_the_original_are_used_where_they_are(voc_root, lists):
    write_lines(lists / "2_train_supervised.txt", "/JPEGImages/e.jpg /SegmentationClassAug/e.png",
                "/JPEGImages/a.jpg /SegmentationClassAug/a.png")  # fmt: skip
    write_lines(lists / "2_train_unsupervised.txt", "/JPEGImages/f.jpg /SegmentationClassAug/f.png")
    write_lines(lists / "val.txt", "/JPEGImages/d.jpg /SegmentationClassAug/d.png")
    data = open_voc(config_of(voc_root, "voc"))
    assert (ids(data.labelled), ids(data.unlabelled), ids(data.validation)) == (["e", "a"], ["f"], ["d"])
    made = open_voc(config_of(voc_root, "voc", datalist=1))  # of which there is no list
    assert ids(made.validation) == ["c"]


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClassAug"])
def test_missing_folder_of_voc_is_named_with_the_way_to_it(voc_root, folder):
    path = voc_root / "VOCdevkit" / "VOC2012" / folder
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(UsageError) as error:
        looked_up(open_voc(config_of(voc_root, "voc")))
    for part in (str(path), "README", "python3 -m dataloaders.prepare voc"):
        assert part in str(error.value)


def test_missing_voc_names_the_data_root(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        looked_up(open_voc(config_of(tmp_path / "nowhere", "voc")))


@pytest.mark.parametrize(
    ("folder", "named"), [("JPEGImages", "image c is missing"), ("SegmentationClassAug", "mask c is missing")]
)
def test_validation_image_or_mask_that_is_missing_is_named(voc_root, folder, named):
    for path in (voc_root / "VOCdevkit" / "VOC2012" / folder).glob("c.*"):
        path.unlink()
    with pytest.raises(UsageError, match=named):
        looked_up(open_voc(config_of(voc_root, "voc")))


@pytest.fixture(params=["", "VOCdevkit/VOC2012"])
def custom_root(request, tmp_path):
    """Images a to f, of which e and f have no mask; validation is b. Both places of the layout."""
    layout = tmp_path / "own" / request.param
    make(layout, "JPEGImages", ".PNG", "abc")
    make(layout, "JPEGImages", ".jpeg", "def")
    make(layout, "SegmentationClass", ".png", "abcd")
    write_lines(layout / "ImageSets" / "Segmentation" / "val.txt", "b")
    write_lines(layout / "classes.txt", "sky", "tall tree", "road")
    return tmp_path / "own"


def layout_of(root):
    inner = root / "VOCdevkit" / "VOC2012"
    return inner if inner.is_dir() else root


def test_custom_images_without_a_mask_are_unlabelled(custom_root):
    data = open_custom(config_of(custom_root, "custom"))
    assert len(data.labelled) == 2
    assert set(ids(data.labelled)) < {"a", "c", "d"}
    assert sorted(ids(data.labelled) + ids(data.unlabelled)) == ["a", "c", "d", "e", "f"]
    assert all(sample.label is None for sample in data.unlabelled)
    assert ids(data.validation) == ["b"]


def test_custom_train_txt_is_the_pool_where_it_is(custom_root):
    path = layout_of(custom_root) / "ImageSets" / "Segmentation" / "train.txt"
    write_lines(path, "f", "d", "a", "b")  # b is held out
    data = open_custom(config_of(custom_root, "custom"))
    assert sorted(ids(data.labelled)) == ["a", "d"]
    assert ids(data.unlabelled) == ["f"]


def test_custom_lists_lie_with_the_data_set(custom_root):
    lists = layout_of(custom_root) / "ImageSets" / "Segmentation" / "splits3"
    write_lines(lists / "1_train_supervised.txt", "JPEGImages/c.PNG SegmentationClass/c.png")
    write_lines(lists / "1_train_unsupervised.txt", "JPEGImages/f.jpeg")
    data = open_custom(config_of(custom_root, "custom", n_labelled=1, datalist=3))
    assert (ids(data.labelled), ids(data.unlabelled)) == (["c"], ["f"])


def test_more_labelled_images_than_have_masks_is_refused(custom_root):
    with pytest.raises(UsageError, match="n_labeled_examples is 4, .* 3 images with masks"):
        looked_up(open_custom(config_of(custom_root, "custom", n_labelled=4)))


@pytest.mark.parametrize("gone", ["JPEGImages", "SegmentationClass", "classes.txt", "ImageSets/Segmentation/val.txt"])
def test_missing_part_of_a_custom_data_set_is_named(custom_root, gone):
    path = layout_of(custom_root) / gone
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(UsageError) as error:
        looked_up(open_custom(config_of(custom_root, "custom")))
    assert str(error.value).startswith(f"{path}: ")


def test_id_of_train_txt_without_an_image_is_named(custom_root):
    write_lines(layout_of(custom_root) / "ImageSets" / "Segmentation" / "train.txt", "a", "d", "zebra")
    with pytest.raises(UsageError, match="image zebra is missing"):
        looked_up(open_custom(config_of(custom_root, "custom")))


@pytest.mark.parametrize("name", ["../../outside", "../JPEGImages/a", "/etc/passwd", "."])
def test_id_that_is_a_path_names_no_image_and_so_no_output(custom_root, name):
    make(layout_of(custom_root).parent, ".", ".jpg", "outside")
    write_lines(layout_of(custom_root) / "ImageSets" / "Segmentation" / "train.txt", "a", "d", name)
    with pytest.raises(UsageError, match=f"the image {name} is missing"):
        looked_up(open_custom(config_of(custom_root, "custom")))


def test_link_to_itself_is_no_folder_and_no_list(custom_root):
    for part in ("classes.txt", "ImageSets/Segmentation/val.txt", "SegmentationClass"):
        path = layout_of(custom_root) / part
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path)
        with pytest.raises(UsageError, match=f"{path}: "):
            looked_up(open_custom(config_of(custom_root, "custom")))
        path.unlink()
        path.with_name("elsewhere").rename(path)


def test_classes_txt_of_windows_is_read_and_one_in_another_encoding_named(custom_root):
    path = layout_of(custom_root) / "classes.txt"
    path.write_bytes("\ufeffHimmel 1 2 3\r\nStraße 4 5 6\r\n".encode())
    assert open_custom(config_of(custom_root, "custom")).classes == ("Himmel", "Straße")
    path.write_bytes("Himmel\nStraße\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"classes\.txt: .* not in UTF-8"):
        looked_up(open_custom(config_of(custom_root, "custom")))


@pytest.mark.parametrize(
    ("folder", "suffix", "kind"), [("JPEGImages", ".bmp", "image"), ("SegmentationClass", ".PNG", "mask")]
)
def test_two_files_for_one_id_are_refused_where_a_list_names_it(custom_root, folder, suffix, kind):
    make(layout_of(custom_root), folder, suffix, "b")
    with pytest.raises(UsageError, match=rf"b\.\w+ and .*b\.\w+: both are the {kind} b\. Remove one"):
        looked_up(open_custom(config_of(custom_root, "custom")))


def test_classes_and_colours_come_from_classes_txt(custom_root):
    path = layout_of(custom_root) / "classes.txt"
    data = open_custom(config_of(custom_root, "custom"))
    assert data.classes == ("sky", "tall tree", "road")
    assert (data.palette == voc_palette()).all()

    write_lines(path, "sky 1 2 3", "", "tall tree 4 5 6", "lane 2 7 8 255")
    data = open_custom(config_of(custom_root, "custom"))
    assert data.classes == ("sky", "tall tree", "lane 2")
    assert data.palette[:3].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 255]]
    assert data.palette[255].tolist() == [255, 255, 255]


def test_classes_of_the_configuration_come_first(custom_root):
    config = config_of(custom_root, "custom", classes=["one", "two"])
    assert open_custom(config).classes == ("one", "two")
    (layout_of(custom_root) / "classes.txt").unlink()
    assert open_custom(config).classes == ("one", "two")


def test_empty_classes_txt_is_refused(custom_root):
    write_lines(layout_of(custom_root) / "classes.txt", "")
    with pytest.raises(UsageError, match=r"classes\.txt: names no class"):
        looked_up(open_custom(config_of(custom_root, "custom")))


def test_validation_by_its_list_needs_no_training_pool_and_no_folder_of_masks_but_its_own(voc_root, lists):
    devkit = voc_root / "VOCdevkit" / "VOC2012"
    for folder in ("SegmentationClassAug", "ImageSets"):
        (devkit / folder).rename(devkit / f"no {folder}")
    write_lines(lists / "val.txt", "/JPEGImages/c.jpg /SegmentationClass/c.png")
    data = open_voc(config_of(voc_root, "voc", n_labelled=331))
    assert [(sample.image, sample.label) for sample in data.validation] == [
        (devkit / "JPEGImages/c.jpg", devkit / "SegmentationClass/c.png")
    ]
    with pytest.raises(UsageError, match="SegmentationClassAug: this folder of PASCAL VOC is missing"):
        len(data.labelled)


def test_labelled_images_by_their_list_need_neither_the_validation_set_nor_the_unlabelled_images(voc_root, lists):
    devkit = voc_root / "VOCdevkit" / "VOC2012"
    for name in ("b", "c"):
        (devkit / "JPEGImages" / f"{name}.jpg").unlink()
    write_lines(lists / "2_train_supervised.txt", "/JPEGImages/e.jpg /SegmentationClassAug/e.png",
                "/JPEGImages/a.jpg /SegmentationClassAug/a.png")  # fmt: skip
    write_lines(lists / "2_train_unsupervised.txt", "/JPEGImages/b.jpg")
    data = open_voc(config_of(voc_root, "voc"))
    assert ids(data.labelled) == ["e", "a"]
    with pytest.raises(UsageError, match=r"b\.jpg is missing"):
        len(data.unlabelled)


def test_images_that_a_list_holds_out_are_no_training_images_even_where_they_are_gone(voc_root, lists):
    (voc_root / "VOCdevkit" / "VOC2012" / "JPEGImages" / "d.jpg").unlink()
    write_lines(lists / "val.txt", "/JPEGImages/d.jpg /SegmentationClassAug/d.png")
    data = open_voc(config_of(voc_root, "voc"))
    assert sorted(ids(data.labelled) + ids(data.unlabelled)) == ["a", "b", "c", "e"]


JUDGED = {"trainer": {"epochs": 1, "pseudo_label_quality": True}}


def test_masks_of_unlabelled_images_are_found_where_pseudo_labels_are_judged_by_them(custom_root):
    data = open_custom(config_of(custom_root, "custom", **JUDGED))
    plain = open_custom(config_of(custom_root, "custom"))
    assert (data.labelled, ids(data.unlabelled)) == (plain.labelled, ids(plain.unlabelled))
    masks = {sample.id: sample.label for sample in data.unlabelled}
    (other,) = set("acd") - set(ids(data.labelled))
    mask = layout_of(custom_root) / "SegmentationClass" / f"{other}.png"
    assert masks == {other: mask, "e": None, "f": None}


def test_masks_of_an_unlabelled_list_are_taken_where_they_are_there(voc_root, lists):
    write_lines(lists / "1_train_supervised.txt", "/JPEGImages/e.jpg /SegmentationClassAug/e.png")
    listed = ("a.jpg /SegmentationClassAug/a.png", "f.jpg /SegmentationClassAug/f.png", "d.jpg")
    write_lines(lists / "1_train_unsupervised.txt", *(f"/JPEGImages/{line}" for line in listed))
    for more, expected in ((JUDGED, ["a.png", None, None]), ({}, [None, None, None])):
        data = open_voc(config_of(voc_root, "voc", n_labelled=1, **more))
        assert [sample.label and sample.label.name for sample in data.unlabelled] == expected
