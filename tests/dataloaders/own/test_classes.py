from collections import Counter

import pytest

from dataloaders.own.classes import propose_classes
from tests.dataloaders.miniature import write_lines
from utils.errors import UsageError

RED, GREEN = 0xFF0000, 0x00FF00


def propose(values, *, by_colour=False, colours=None, **more):
    return propose_classes(Counter(values), by_colour=by_colour, colours=colours or {}, **more)


def test_contiguous_values_are_the_indices_and_255_is_no_class():
    proposal = propose([0, 1, 2, 255])
    assert proposal.values == (0, 1, 2)
    assert proposal.names == ("class_0", "class_1", "class_2")
    assert "--ignore none" in proposal.notes[0]


@pytest.mark.parametrize("values", [[0, 255], [0, 1], [0, 1, 255]])
def test_two_classes_are_background_and_foreground(values):
    proposal = propose(values)
    assert proposal.names == ("background", "foreground")
    assert proposal.values == ((0, 255) if values == [0, 255] else (0, 1))


def test_255_as_foreground_is_said():
    assert "255 the foreground" in propose([0, 255]).notes[0]
    assert propose([0, 1]).notes == []


def test_values_with_gaps_are_taken_in_their_order_which_is_said():
    proposal = propose([0, 5, 7])
    assert (proposal.values, proposal.names) == ((0, 5, 7), ("class_0", "class_5", "class_7"))
    assert "the values 0, 5, 7 become the class indices 0 to 2" in proposal.notes[0]


def test_ignore_says_which_values_are_no_class():
    assert propose([0, 128, 255]).values == (0, 128)
    assert propose([0, 128, 255], ignore=[]).values == (0, 128, 255)
    assert propose([0, 1, 2, 255], ignore=[0, 255]).values == (1, 2)


def test_colours_of_the_palette_are_kept_where_they_tell_the_classes_apart():
    assert propose([0, 1], colours={0: 0, 1: GREEN}).colours == ((0, 0, 0), (0, 255, 0))
    assert propose([0, 1], colours={0: RED, 1: RED}).colours == ((0, 0, 0), (128, 0, 0))
    assert propose([0, 1]).colours == ((0, 0, 0), (128, 0, 0))


def test_class_file_names_the_values_in_their_order(tmp_path):
    path = tmp_path / "classes.txt"
    write_lines(path, "sky", "tall tree")
    assert propose([0, 9], class_file=path).names == ("sky", "tall tree")
    write_lines(path, "sky 1 2 3", "tree 4 5 6")
    proposal = propose([0, 255], class_file=path)
    assert (proposal.names, proposal.colours) == (("sky", "tree"), ((1, 2, 3), (4, 5, 6)))


def test_class_file_may_name_classes_of_which_there_is_no_pixel(tmp_path):
    write_lines(tmp_path / "classes.txt", "a", "b", "c", "d")
    proposal = propose([0, 2], class_file=tmp_path / "classes.txt")
    assert (proposal.names, proposal.values) == (("a", "b", "c", "d"), (0, 1, 2, 3))


def test_class_file_that_does_not_fit_names_both_sides(tmp_path):
    write_lines(tmp_path / "classes.txt", "a", "b")
    with pytest.raises(UsageError, match=r"names 2 classes, but the masks hold the values 0, 5, 7"):
        propose([0, 5, 7], class_file=tmp_path / "classes.txt")
    with pytest.raises(UsageError, match="nowhere"):
        propose([0, 1], class_file=tmp_path / "nowhere.txt")


def test_every_colour_is_a_class_but_vocs_border():
    proposal = propose([0, RED, 0xE0E0C0], by_colour=True)
    assert (proposal.values, proposal.names) == ((0, RED), ("colour_0_0_0", "colour_255_0_0"))
    assert proposal.colours == ((0, 0, 0), (255, 0, 0))
    assert "224 224 192" in proposal.notes[0]
    assert propose([0, RED, 0xE0E0C0], by_colour=True, ignore=[]).values == (0, 0xE0E0C0, RED)


def test_colours_that_the_class_file_does_not_list_are_ignored_which_is_said(tmp_path):
    write_lines(tmp_path / "classes.txt", "grass 0 255 0", "car 255 0 0")
    proposal = propose([0, RED, RED, GREEN], by_colour=True, class_file=tmp_path / "classes.txt")
    assert (proposal.names, proposal.values) == (("grass", "car"), (GREEN, RED))
    assert "(0, 0, 0); 25.0% of the pixels" in proposal.notes[0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["grass", "car"], "every line needs one: .* The masks hold \\(0, 0, 0\\), \\(255, 0, 0\\)"),
        (["grass 1 1 1", "car 2 2 2"], "have none of its colours; they hold \\(0, 0, 0\\)"),
        (["grass 0 0 0", "car 0 0 0"], "one colour to two classes"),
    ],
)
def test_class_file_that_does_not_fit_colours_is_refused(tmp_path, lines, message):
    write_lines(tmp_path / "classes.txt", *lines)
    with pytest.raises(UsageError, match=message):
        propose([0, RED], by_colour=True, class_file=tmp_path / "classes.txt")


@pytest.mark.parametrize("values", [[0], [255], [3, 255]])
def test_one_class_only_is_refused(values):
    with pytest.raises(UsageError, match="one class only"):
        propose(values)


def test_250_classes_are_possible_and_251_are_not():
    assert len(propose([*range(250), 255]).names) == 250
    with pytest.raises(UsageError, match="251 classes, at most 250"):
        propose(range(251))


def test_ignored_values_make_no_sense_for_colours():
    with pytest.raises(UsageError, match="--ignore takes values"):
        propose([0, RED], by_colour=True, ignore=[3])
