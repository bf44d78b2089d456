from collections import Counter

import numpy as np
import pytest

from dataloaders.own.classes import propose_classes
from dataloaders.own.evidence import MaskStatistics
from tests.dataloaders.miniature import write_lines
from utils.errors import UsageError

RED, GREEN = 0xFF0000, 0x00FF00


def propose(values, *, by_colour=False, colours=None, **more):
    """Of one mask whose values form areas, and 255 a line between two of them."""
    pixels = Counter(values)
    mask = MaskStatistics(pixels, solid=pixels, lines=pixels[255] if len(pixels) > 2 else 0)
    return propose_classes([mask], by_colour=by_colour, colours=colours or {}, **more)


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
    assert propose([0, 128, 255], ignore=[255]).values == (0, 128)
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


@pytest.mark.parametrize("values", [[0], [255], [3]])
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


def masks_of(*pixels):
    return [MaskStatistics(one, {value: n for value, n in one.items() if n > 50}) for one in pixels]


def test_1_here_and_255_there_are_one_class():
    proposal = propose_classes(masks_of({0: 900, 1: 100}, {0: 900, 255: 100}), by_colour=False, colours={})
    assert (proposal.names, proposal.values) == (("background", "foreground"), (0, 1))
    assert proposal.indices(np.array([0, 1, 255])).tolist() == [0, 1, 1]


def test_mixed_evidence_on_255_is_refused_with_both_ways():
    with pytest.raises(UsageError, match="evidence is mixed: .*--ignore 255 .no class.*--ignore none .a class"):
        propose_classes(masks_of({0: 500, 1: 200, 255: 300}), by_colour=False, colours={})


@pytest.mark.parametrize(("names", "values"), [(["a", "b"], (0, 20)), (["a", "b", "c"], (0, 20, 255))])
def test_class_file_says_whether_255_is_a_class(tmp_path, names, values):
    masks = masks_of({0: 5000, 20: 4900, 255: 100})
    write_lines(tmp_path / "classes.txt", *names)
    assert propose_classes(masks, by_colour=False, colours={}, class_file=tmp_path / "classes.txt").values == values


NOISY = {0: 90000, 255: 9000} | dict.fromkeys([1, 2, 3, 252, 253, 254], 20)


def test_noise_is_refused_with_the_way_out_and_snapped_where_asked():
    with pytest.raises(UsageError, match="hold 0, 255 and 6 other values, which cover 0.12% .*--snap"):
        propose_classes(masks_of(NOISY), by_colour=False, colours={})
    proposal = propose_classes(masks_of(NOISY), by_colour=False, colours={}, snap=True)
    assert proposal.values == (0, 255)
    assert "--snap takes 0.12% of the pixels" in proposal.notes[0]
    assert proposal.indices(np.array([0, 3, 100, 200, 255])).tolist() == [0, 0, 0, 1, 1]


def test_value_that_is_no_class_takes_its_noise_with_it():
    pixels = {0: 90000, 1: 9000, 255: 9000} | dict.fromkeys([250, 251, 252, 253], 20)
    proposal = propose_classes(masks_of(pixels), by_colour=False, colours={}, ignore=[255], snap=True)
    assert proposal.indices(np.array([0, 1, 4, 250, 255])).tolist() == [0, 1, 1, 255, 255]


def test_colours_are_snapped_to_the_listed_ones(tmp_path):
    write_lines(tmp_path / "classes.txt", "grass 0 255 0", "car 255 0 0")
    proposal = propose([RED, GREEN, 0xF00008], by_colour=True, class_file=tmp_path / "classes.txt", snap=True)
    assert proposal.indices(np.array([0x10F010, 0xF00008, RED])).tolist() == [0, 1, 1]
    assert not any("are ignored" in note for note in proposal.notes)


def test_transparent_pixels_are_background_and_one_with_black_where_they_share_no_mask():
    apart = propose_classes(masks_of({-1: 900, RED: 100}, {0: 900, RED: 100}), by_colour=True, colours={})
    assert apart.values == (0, RED)
    assert apart.indices(np.array([-1, 0, RED])).tolist() == [0, 0, 1]
    together = propose_classes(masks_of({-1: 900, 0: 100}), by_colour=True, colours={})
    assert together.names == ("background", "colour_0_0_0")
    assert len(set(together.colours)) == 2


def test_colours_that_are_nearly_the_listed_ones_are_refused(tmp_path):
    write_lines(tmp_path / "classes.txt", "grass 0 255 0", "car 255 0 0")
    values = [RED, GREEN, 0xF00008, 0xF00009, 0xF0000A, 0xF0000B]
    with pytest.raises(UsageError, match="66.7% of the pixels have 4 colours that are nearly those .*--snap"):
        propose(values, by_colour=True, class_file=tmp_path / "classes.txt")


@pytest.mark.parametrize("snap", [False, True])
def test_colours_of_photo_compression_are_refused_with_the_class_file_that_helps(snap):
    areas = {RED: 50000, RED + 1: 4000, GREEN: 20000, 0x0000FF: 100}
    noise = {3000 + 4 * number: 40 for number in range(1000)}
    mask = MaskStatistics(areas | noise, areas)
    with pytest.raises(UsageError, match=r"--classes FILE --snap .* about \(255, 0, 0\), \(0, 255, 0\)\.$"):
        propose_classes([mask], by_colour=True, colours={}, snap=snap)


def test_lines_of_noise_around_255_do_not_make_it_no_class():
    pixels = {0: 90000, 127: 9000, 255: 9000} | dict.fromkeys([1, 2, 120, 124, 250, 251, 252, 253], 20)
    mask = MaskStatistics(pixels, {value: n for value, n in pixels.items() if n > 50}, lines=9000)
    assert propose_classes([mask], by_colour=False, colours={}, snap=True).values == (0, 127, 255)
