from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dataloaders.check import check_data, lost_classes, refuse_leaks, refuse_void_masks
from dataloaders.sets.description import Sample
from tests.dataloaders.miniature import config_of, data_of, write_image, write_mask
from utils.errors import UsageError

NOISE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


@pytest.fixture
def data(tmp_path):
    """Three labelled images, two unlabelled and one for validation."""

    def sample(name, *, mask=True):
        image = write_image(tmp_path / "images" / f"{name}.png", NOISE)
        return Sample(name, image, write_mask(tmp_path / "masks" / f"{name}.png", 1, (16, 24)) if mask else None)

    labelled, unlabelled = [sample(name) for name in "abc"], [sample(name, mask=False) for name in "de"]
    return data_of(labelled, unlabelled=unlabelled, validation=[sample("f")])


def check(data, **keys):
    return check_data(config_of("nowhere", "custom", **keys), data, 1)


def test_data_in_order_is_counted_and_nothing_is_wrong(data):
    report = check(data)
    assert report.wrong == []
    assert {split: len(found) for split, found in report.findings.items()} == {
        "labelled": 3, "unlabelled": 2, "validation": 1,
    }  # fmt: skip
    assert report.findings["labelled"][0].pixels.tolist() == [0, 16 * 24, 0, 0]
    assert "24 x 16" in report.text()
    assert "wrong: 0" in report.text()


def test_everything_wrong_is_listed_once_with_its_file(data):
    for path in (data.labelled[0].image, data.unlabelled[1].image):
        path.write_bytes(path.read_bytes()[:100])
    write_mask(data.labelled[0].label, 77, (16, 24))
    write_mask(data.validation[0].label, 1, (4, 4))
    report = check(data)
    assert len(report.wrong) == 4
    for name, what in (
        (data.labelled[0].label, "label id 77"), (data.labelled[0].image, "cannot be read"),
        (data.unlabelled[1].image, "cannot be read"), (data.validation[0].label, "is 4 x 4 pixels"),
    ):  # fmt: skip
        assert sum(line.startswith(f"{name}: ") and what in line for line in report.wrong) == 1
    assert report.text().endswith("\n  ".join(["wrong: 4", *report.wrong]))


def test_jpeg_damaged_in_its_middle_is_found_by_its_decoders_complaint(data, capfd):
    path = data.unlabelled[0].image
    Image.fromarray(np.tile(NOISE, (8, 8, 1))).save(path, "JPEG")
    content = path.read_bytes()
    path.write_bytes(content[:2000] + b"\xff\xd0" + content[2002:])  # a marker that does not belong there
    report = check(data)
    assert [line.startswith(f"{path}: is damaged (Corrupt JPEG data") for line in report.wrong] == [True]
    assert "Corrupt" not in capfd.readouterr().err


def test_notes_say_what_is_no_mistake_but_worth_knowing(data):
    notes = "\n".join(check(data).notes)
    assert "labelled: no pixel of ground, house" in notes
    assert "3 labelled images are fewer than a batch" in notes
    both = replace(data, unlabelled=data.labelled[:1])
    assert "1 labelled images are unlabelled images as well" in "\n".join(check(both).notes)


@pytest.mark.parametrize("part", ["labelled", "unlabelled"])
def test_training_images_among_those_of_validation_are_wrong_and_refused_before_a_run(data, part):
    refuse_leaks(data, ("labelled", "unlabelled", "validation"))
    leaking = replace(data, **{part: (*getattr(data, part), *data.validation[:1])})
    (wrong,) = check(leaking).wrong
    assert wrong.startswith(f"{data.validation[0].image}: 1 of the {part} images are validation images as well")
    with pytest.raises(UsageError) as error:
        refuse_leaks(leaking, (part, "validation"))
    assert str(error.value) == wrong
    refuse_leaks(leaking, (part,))  # a training without validation


@pytest.mark.parametrize("split", ["labelled", "validation"])
def test_masks_without_a_pixel_of_a_class_are_wrong_and_refused_before_a_run(data, split):
    refuse_void_masks(data, split)
    for sample in getattr(data, split):
        write_mask(sample.label, 255, (16, 24))
    (wrong,) = check(data).wrong
    assert wrong.startswith(f"{split}: none of the {len(getattr(data, split))} masks has a pixel of a class")
    with pytest.raises(UsageError) as error:
        refuse_void_masks(data, split)
    assert str(error.value) == wrong


def test_many_files_are_read_by_several_processes(data, tmp_path):
    many = tuple(Sample(str(number), tmp_path / f"{number}.png") for number in range(70))
    for sample in many:
        sample.image.hardlink_to(data.labelled[0].image)
    report = check_data(config_of("nowhere", "custom"), data_of(unlabelled=many), 2)
    assert [one.size for one in report.findings["unlabelled"]] == [(16, 24)] * 70


def test_declared_class_without_a_pixel_beside_many_ignored_ones_is_a_warning(tmp_path):
    def data(*values):
        labelled = [Sample("a", tmp_path / "a.png", write_mask(tmp_path / "a.png", np.array([values], np.uint8)))]
        return data_of(labelled, classes=("sky", "lane"))

    warning = lost_classes(data(0, 0, 255))
    assert warning is not None
    assert "no labelled pixel is of lane, while 33.3% of the pixels are 255" in warning
    assert lost_classes(data(0, 1, 255)) is None
    assert lost_classes(data(0, 0, 0)) is None
    assert lost_classes(data(*[0] * 199, 255)) is None


def test_class_that_may_be_the_ignored_value_is_noted(data):
    write_mask(data.labelled[0].label, np.full((16, 24), 255, np.uint8))
    assert any("of the pixels are 255, which is ignored" in note for note in check(data).notes)
