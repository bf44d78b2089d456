"""``--init_data`` on files as people have them: their names, kinds and annotations."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main as command_line
from tests.dataloaders.miniature import save_turned
from tests.dataloaders.own.folders import SIZE, names, scene, write_images, write_mask
from tests.trainer.planning.own_folders import COLOURS, folders, init, opened, refused

pytestmark = pytest.mark.usefixtures("workplace")


def test_images_and_masks_may_share_one_folder(unplanned):
    write_images(Path("both"), names(12, ".jpg"))
    for number in range(6):
        write_mask(Path("both") / f"{number:03d}_mask.png", scene(number))
    assert init(images="both", masks="both") == 0
    assert len(opened().unlabelled) == 6


def test_several_binary_masks_of_one_image_are_united_which_is_said(unplanned, capsys):
    write_images(Path("images"), names(12))
    for number in range(6):
        write_mask(Path("masks") / f"{number:03d}_mask.png", (scene(number) == 1).astype(np.uint8))
        write_mask(Path("masks") / f"{number:03d}_mask_1.png", (scene(number) == 2).astype(np.uint8))
    assert init() == 0
    assert "assumed: 6 images have several masks, which are united" in capsys.readouterr().out
    data = opened()
    for sample in data.labelled:
        assert np.array_equal(data.read_mask(sample.label), scene(int(sample.id)) > 0)


def test_masks_without_an_image_are_named_and_left_out(unplanned, capsys):
    folders()
    write_mask(Path("masks") / "zebra.png", scene(0))
    assert init() == 0
    assert "1 masks have no image and are left out: zebra.png" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_mask_whose_decoder_runs_a_program_and_a_decompression_bomb_are_refused(capsys):
    folders()
    Image.fromarray(scene(0)).save("masks/003.png", "EPS")
    assert "masks/003.png: cannot be read as a mask" in refused(capsys)
    Image.new("1", (11000, 11000)).save("masks/003.png")
    assert "masks/003.png: refused: more than 89,478,485 pixels" in refused(capsys)


def test_range_of_16_bit_images_is_found_and_kept_with_the_data_set(unplanned, capsys):
    folders()
    for number, path in enumerate(sorted(Path("images").iterdir())):
        values = np.linspace(100 + number, 4000 + number, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
        values[0, -1] = 65535 if number == 3 else values[0, -1]
        write_mask(path, values)
    assert init() == 0
    said = capsys.readouterr().out
    assert "16-bit values go from 100 (black) to 4011 (white)" in said
    assert "1 of the 16-bit images hold a few values far beyond their others" in said
    assert "to 65535 with these" in said
    assert opened().value_range == (100, 4011)


@pytest.mark.parametrize("turned_mask", [False, True])
def test_mask_may_be_drawn_on_the_turned_or_on_the_stored_picture(unplanned, turned_mask):
    folders()
    for path in Path("images").iterdir():
        save_turned(path, SIZE[::-1])
    for path in Path("masks").iterdir():
        write_mask(path, scene(0) if turned_mask else scene(0, size=SIZE[::-1]))
    assert init() == 0
    data = opened()
    image, mask = data.read_pair(data.labelled[0])
    assert image.shape[:2] == mask.shape == (SIZE if turned_mask else SIZE[::-1])


def coco_file(path, size=SIZE):
    square = [4, 4, 20, 4, 20, 20, 4, 20]
    contents = {
        "images": [
            {"id": at, "file_name": name, "height": size[0], "width": size[1]} for at, name in enumerate(names(6))
        ],
        "annotations": [{"image_id": number, "category_id": 3, "segmentation": [square]} for number in range(6)],
        "categories": [{"id": 3, "name": "cat"}],
    }
    Path(path).write_text(json.dumps(contents))


def test_cocos_annotations_become_a_data_set(unplanned, capsys):
    write_images(Path("images"), names(12))
    coco_file("instances.json")
    assert init(masks="instances.json") == 0
    data = opened()
    assert data.classes == ("background", "cat")
    assert len(data.unlabelled) == 6
    assert data.read_mask(data.labelled[0].label).sum() == 16 * 16
    assert "assumed: pixels outside all objects are the class background" in capsys.readouterr().out


def test_labelmes_files_beside_the_images_become_a_data_set(unplanned):
    write_images(Path("images"), names(12, ".jpg"))
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[4, 4], [19, 19]]}
    for name in names(6, ".json"):
        (Path("images") / name).write_text(
            json.dumps({"shapes": [shape], "imageHeight": SIZE[0], "imageWidth": SIZE[1]})
        )
    assert init(masks="images") == 0
    data = opened()
    assert data.classes == ("background", "cat")
    assert data.read_mask(data.labelled[0].label).sum() == 16 * 16


def test_annotations_that_do_not_fit_are_refused(capsys):
    write_images(Path("images"), names(12))
    coco_file("instances.json", size=(30, 30))
    assert "instances.json/000.png.png (30 x 30, image 48 x 32)" in refused(capsys, masks="instances.json")
    assert "--classes, --ignore and --snap do not go with" in refused(
        capsys, "--ignore", "none", masks="instances.json"
    )
    Path("notes.txt").write_text("no annotations")
    assert "no COCO annotation file" in refused(capsys, masks="notes.txt")


@pytest.mark.parametrize("rgb", [False, True])
def test_description_is_given_again_as_it_was_edited(unplanned, capsys, rgb):
    folders(colours=COLOURS, rgb=rgb)
    assert init() == 0
    capsys.readouterr()
    path = Path("dataset/mine/dataset.json")
    before = json.loads(path.read_text())
    assert before["values"] == (["#000000", "#0000ff", "#ff0000"] if rgb else [0, 1, 2])
    moved = next(iter(before["labelled"]))
    edited = before | {
        "classes": ["b", "a"], "values": before["values"][1::-1], "colours": before["colours"][1::-1],
        "labelled": {id_: image for id_, image in before["labelled"].items() if id_ != moved},
        "validation": before["validation"] | {moved: f"{moved}.png"},
    }  # fmt: skip
    path.write_text(json.dumps(edited))
    assert command_line.main(["--init_data", str(path), "--name", "mine", "--force", "--device", "cpu"]) == 0
    assert "does not list" in capsys.readouterr().out
    data = opened()
    assert data.classes == ("b", "a")
    assert moved in [sample.id for sample in data.validation]
    table = np.array([1, -1, 0] if rgb else [1, 0, -1])
    for sample in data.labelled:
        assert np.array_equal(data.read_mask(sample.label), table[scene(int(sample.id))])


def test_description_whose_edit_makes_no_sense_is_refused(unplanned, capsys):
    folders()
    assert init() == 0
    path = Path("dataset/mine/dataset.json")
    before = json.loads(path.read_text())
    for edit, message in (
        ({"values": [0, 1, 1]}, "give each of the 3 classes a value of its own"),
        ({"values": ["#000000", "#0000ff", "#ff0000"]}, "read by numbers"),
        ({"labelled": before["unlabelled"], "unlabelled": before["labelled"]}, "without a mask"),
        ({"masks": None}, "does not say where the masks are"),
    ):
        path.write_text(json.dumps(before | edit))
        capsys.readouterr()
        assert command_line.main(["--init_data", str(path), "--name", "mine", "--force"]) == 2
        assert message in capsys.readouterr().err


def test_dry_run_says_and_draws_what_was_decided_and_writes_nothing_else(capsys):
    folders(colours=COLOURS)
    assert init("--dry_run") == 0
    printed = capsys.readouterr().out
    for part in ("split: 5 labelled, 1 validation, 6 unlabelled", "class_2", str(Path("init_preview.png").absolute())):
        assert part in printed
    assert sorted(path.name for path in Path().iterdir()) == ["images", "init_preview.png", "masks"]


def test_preview_lies_with_the_data_set_as_well(unplanned):
    folders()
    assert init() == 0
    assert Path("dataset/mine/init_preview.png").is_file()
    assert not Path("init_preview.png").exists()


@pytest.mark.parametrize("kind", ["snapped", "two ways", "transparent"])
def test_description_given_again_writes_the_same_masks(unplanned, kind):
    write_images(Path("images"), names(12))
    Path("masks").mkdir()
    for number, name in enumerate(names(6)):
        values = scene(number, 2)
        if kind == "snapped":
            Image.fromarray(values * 255).save(Path("masks") / name, "JPEG", quality=90)
        elif kind == "two ways":
            Image.fromarray(values * (255 if number % 2 else 1)).save(Path("masks") / name)
        else:
            colours = np.array([[9, 9, 9, 0], [255, 0, 0, 255]], np.uint8)
            Image.fromarray(colours[values]).save(Path("masks") / name)
    assert init(*["--snap"] * (kind == "snapped")) == 0

    def written() -> dict[str, np.ndarray]:
        return {path.name: np.array(Image.open(path)) for path in Path("dataset/mine/masks").iterdir()}

    first = written()
    assert all((mask == scene(int(name[:3]), 2)).mean() > 0.9 for name, mask in first.items())
    Path("dataset.json").write_bytes(Path("dataset/mine/dataset.json").read_bytes())
    assert command_line.main(["--init_data", "dataset.json", "--name", "mine", "--device", "cpu", "--force"]) == 0
    again = written()
    assert again.keys() == first.keys()
    assert all(np.array_equal(again[name], first[name]) for name in first)
