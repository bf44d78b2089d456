import random

import pytest

from dataloaders.sets.description import Sample
from dataloaders.sets.splits import choose_labelled, read_ids, read_list, read_or_choose
from tests.dataloaders.miniature import config_of, write_lines
from utils.errors import UsageError

IDS = [f"image_{number:03}" for number in range(40)]


@pytest.fixture
def root(tmp_path):
    for name in ("images/a.jpg", "images/b.jpg", "images/two words.jpg", "masks/a.png", "masks/two words.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(root, text):
    path = root / "list.txt"
    path.write_bytes(text.encode())
    return path


A = ("a", "images/a.jpg", "masks/a.png")
TWO = ("two words", "images/two words.jpg", "masks/two words.png")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/images/a.jpg /masks/a.png\n", [A]),
        ("images/a.jpg masks/a.png", [A]),
        ("images/a.jpg masks/a.png\r\n\r\nimages/two words.jpg\tmasks/two words.png\r\n", [A, TWO]),
        ("\ufeffimages/a.jpg masks/a.png  \n\n", [A]),
        ("images/two words.jpg masks/two words.png\n/images/a.jpg  /masks/a.png\n", [TWO, A]),
    ],
    ids=["leading slash", "none", "windows line ends", "byte order mark", "names with spaces"],
)
def test_list_is_read_in_its_order(root, text, expected):
    samples = read_list(write(root, text), root, labels=True)
    assert samples == tuple(Sample(id_, root / image, root / mask) for id_, image, mask in expected)


def test_unlabelled_list_needs_no_mask_on_the_line_nor_on_disk(root):
    lines = "images/b.jpg masks/b.png\nimages/a.jpg\n/images/two words.jpg gone/two words.png\n"
    samples = read_list(write(root, lines), root, labels=False)
    assert [sample.id for sample in samples] == ["b", "a", "two words"]
    assert all(sample.label is None for sample in samples)
    assert all(sample.image.is_file() for sample in samples)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("images/gone.jpg masks/a.png", "images/gone.jpg is missing"),
        ("images/b.jpg masks/b.png", "masks/b.png is missing"),
        ("images/b.jpg masks/b.png\nimages/two.jpg masks/a.png", "masks/b.png, {root}/images/two.jpg are missing"),
        ("images/b.jpg", "line 3: no label path"),
    ],
)
def test_files_that_are_missing_are_named_with_their_list(root, line, named):
    path = write(root, f"images/a.jpg masks/a.png\n\n{line}\n")
    with pytest.raises(UsageError) as error:
        read_list(path, root, labels=True)
    assert str(error.value).startswith(str(path))
    assert named.format(root=root) in str(error.value)


def test_list_without_an_image_is_refused(root):
    with pytest.raises(UsageError, match=r"list\.txt: lists no image"):
        read_list(write(root, "\n \n"), root, labels=True)


@pytest.mark.parametrize("line", ["../outside.jpg", "/images/../images/a.jpg", "images/a.jpg ../outside.jpg"])
def test_path_that_leads_out_of_the_data_set_is_refused_with_its_line(root, line):
    (root.parent / "outside.jpg").touch()
    path = write(root, f"images/two words.jpg masks/two words.png\n{line} masks/a.png")
    with pytest.raises(UsageError, match=r"list\.txt, line 2: .*\.\..* leads out of"):
        read_list(path, root, labels=True)


def test_path_from_the_root_of_the_file_system_is_taken_below_the_data_set(root):
    path = write(root, f"{root}/images/a.jpg {root}/masks/a.png")
    with pytest.raises(UsageError, match="are missing"):
        read_list(path, root, labels=True)


def test_list_in_which_an_image_stands_twice_is_refused(root):
    path = write(root, "images/a.jpg masks/a.png\nimages/two words.jpg masks/two words.png\n/images/a.jpg masks/a.png")
    with pytest.raises(UsageError, match=r"list\.txt: .*images/a\.jpg stands there more than once"):
        read_list(path, root, labels=True)
    with pytest.raises(UsageError, match=r"list\.txt: x stands there more than once"):
        read_ids(write(root, "x\ny\nx\n"), "the list")


@pytest.mark.parametrize("text", ["images/größe.jpg masks/a.png".encode("latin-1"), "images/a.jpg".encode("utf-16")])
def test_list_in_another_encoding_is_named(root, text):
    (root / "list.txt").write_bytes(text)
    for read in (lambda path: read_list(path, root, labels=True), lambda path: read_ids(path, "the list")):
        with pytest.raises(UsageError, match=r"list\.txt: .* is not in UTF-8"):
            read(root / "list.txt")


def test_only_some_of_many_missing_files_are_named(root):
    path = write_lines(root / "list.txt", *(f"images/{number}.jpg" for number in range(15)))
    with pytest.raises(UsageError, match=r"images/9\.jpg and 5 more are missing"):
        read_list(path, root, labels=False)


def test_name_on_disk_in_another_encoding_can_be_chosen():
    assert len(choose_labelled([b"gr\xf6\xdfe".decode("utf-8", "surrogateescape"), "b"], 2, seed=0)[0]) == 2


def test_smaller_labelled_sets_are_prefixes_of_the_larger_ones():
    large, _ = choose_labelled(IDS, 20, seed=0)
    for n in (1, 5, 10):
        assert choose_labelled(IDS, n, seed=0)[0] == large[:n]


def test_labelled_and_the_rest_are_the_whole_pool():
    labelled, rest = choose_labelled(IDS, 12, seed=3)
    assert len(labelled) == 12
    assert sorted(labelled + rest) == IDS


def test_choice_does_not_depend_on_the_order_in_which_files_are_found():
    shuffled = random.Random(0).sample(IDS, len(IDS))
    assert choose_labelled(shuffled, 12, seed=0) == choose_labelled(IDS, 12, seed=0)


def test_choice_is_the_same_on_every_machine():
    assert choose_labelled(IDS, 4, seed=0)[0] == ["image_026", "image_010", "image_002", "image_025"]


def test_another_seed_chooses_others():
    assert set(choose_labelled(IDS, 12, seed=0)[0]) != set(choose_labelled(IDS, 12, seed=1)[0])


def test_more_labelled_images_than_there_are_is_refused_with_both_numbers():
    with pytest.raises(UsageError, match=r"n_labeled_examples is 41, .* 40 images"):
        choose_labelled(IDS, 41, seed=0)
    assert len(choose_labelled(IDS, 40, seed=0)[0]) == 40


def test_ids_are_read_one_a_line(tmp_path):
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbfb\r\n\r\n a \r\n")
    assert read_ids(tmp_path / "val.txt", "the list") == ["b", "a"]


def test_missing_and_empty_list_of_ids_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"val\.txt: the list is missing"):
        read_ids(tmp_path / "val.txt", "the list")
    (tmp_path / "val.txt").write_text("\n")
    with pytest.raises(UsageError, match=r"val\.txt: the list is empty"):
        read_ids(tmp_path / "val.txt", "the list")


def open_split(root, **keys):
    """Labelled and unlabelled samples where the choice, if it is made, is a, then b."""
    return read_or_choose(
        root / "lists",
        root,
        config_of(root, "custom", n_labelled=1, **keys),
        choose=lambda n, seed: ([f"chosen {n} by {seed}"], ["rest"]),
        samples=lambda ids, labels: tuple(Sample(id_, root, root if labels else None) for id_ in ids),
    )


def test_lists_of_this_number_are_used_where_they_are(root):
    write_lines(root / "lists" / "1_train_supervised.txt", "images/a.jpg masks/a.png")
    write_lines(root / "lists" / "1_train_unsupervised.txt", "images/two words.jpg masks/x.png", "images/b.jpg x.png")
    labelled, unlabelled = open_split(root)
    assert [(sample.id, sample.label) for sample in labelled] == [("a", root / "masks" / "a.png")]
    assert [(sample.id, sample.label) for sample in unlabelled] == [("two words", None), ("b", None)]


def test_list_of_another_number_of_images_than_its_name_says_is_refused(root):
    write_lines(
        root / "lists" / "1_train_supervised.txt",
        "images/a.jpg masks/a.png",
        "images/two words.jpg masks/two words.png",
    )
    write_lines(root / "lists" / "1_train_unsupervised.txt", "images/b.jpg")
    with pytest.raises(UsageError, match=r"1_train_supervised\.txt: lists 2 images, but its name says 1"):
        len(open_split(root)[0])


def test_without_lists_the_choice_is_made_by_the_configurations_number_and_seed(root):
    write_lines(root / "lists" / "2_train_supervised.txt", "images/a.jpg masks/a.png")  # another split's
    labelled, unlabelled = open_split(root, datalist=5)
    assert [(sample.id, sample.label) for sample in labelled] == [("chosen 1 by 5", root)]
    assert [(sample.id, sample.label) for sample in unlabelled] == [("rest", None)]


@pytest.mark.parametrize(("there", "missing"), [("supervised", "unsupervised"), ("unsupervised", "supervised")])
def test_one_list_without_the_other_is_refused(root, there, missing):
    write_lines(root / "lists" / f"1_train_{there}.txt", "images/a.jpg masks/a.png")
    for part in open_split(root):
        with pytest.raises(UsageError) as error:
            len(part)
    assert str(error.value).startswith(f"{root / 'lists' / f'1_train_{missing}.txt'}: this list is missing")
