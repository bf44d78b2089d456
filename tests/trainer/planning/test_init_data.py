"""From a user's folders through ``main.py --init_data`` to a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main as command_line
from tests.dataloaders.own.folders import SIZE, names, scene, write_images, write_mask
from tests.trainer.planning.own_folders import COLOURS, folders, init, opened, refused
from trainer.planning.init_data import Request, init_data
from utils.config_file import load_config

pytestmark = pytest.mark.usefixtures("workplace")
SMALL = [
    "model.base_width=4", "model.out_dim=8", "model.epoch_start_unsup=1", "trainer.epochs=1",
    "trainer.val_per_epochs=9", "trainer.tensorboardX=false", "train_supervised.num_workers=0", 
    "train_unsupervised.num_workers=0",
]  # fmt: skip


def stages() -> Path:
    """All four stages and the evaluation with the smallest network; USRN's folder."""
    options = [part for setting in SMALL for part in ("--set", setting)]
    baseline, usrn = (["-c", f"configs/mine_{kind}.json", *options] for kind in ("baseline", "usrn"))
    for arguments in (
        baseline, [*baseline, "--save_feature"], [*baseline, "--clustering"], usrn, [*usrn, "--test"],
    ):  # fmt: skip
        assert command_line.main(arguments) == 0
    return Path("saved/mine_usrn")


def test_four_stages_run_on_what_it_wrote_and_the_users_files_stay_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr("trainer.planning.rehearsal.TIMED_ITERATIONS", 2)
    for number in range(12):
        write_images(Path("images"), [f"north/{number:03d}.jpg"], SIZE)
    for number in range(6):
        write_mask(Path("masks") / f"north/{number:03d}_mask.png", scene(number), COLOURS, rgb=True)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert init() == 0
    printed = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for part in (
        "images: 12 images; all 48 x 32; modes RGB 12", "masks of 6 images; modes RGB 6; read by colour",
        "split: 5 labelled, 1 validation, 6 unlabelled", "colour_255_0_0", "33.33 %", "iterations", "subclasses:",
        "memory:", "time:", "next: sh main.sh mine",
    ):  # fmt: skip
        assert part in printed
    run_dir = stages()
    assert len(json.loads((run_dir / "results.json").read_text())["iou"]) == 3
    prediction = next((run_dir / "preds").glob("north__*.png"))
    with Image.open(prediction) as image:
        assert image.getpalette()[:9] == [0, 0, 0, 0, 0, 255, 255, 0, 0]


@pytest.mark.parametrize("n_classes", [2, 250])
def test_two_and_250_classes_run(n_classes, unplanned):
    folders(n_images=8, n_masks=4, n_classes=n_classes, size=(40, 256), mode="L")
    assert init() == 0
    run_dir = stages()
    assert len(json.loads((run_dir / "results.json").read_text())["iou"]) == n_classes


@pytest.mark.parametrize("mask", [{}, {"colours": COLOURS}, {"colours": COLOURS, "rgb": True}], ids=["L", "P", "RGB"])
def test_masks_become_palette_pngs_of_indices(unplanned, mask):
    folders(**mask)
    assert init() == 0
    data = opened()
    order = [0, 2, 1] if "rgb" in mask else [0, 1, 2]  # colours are taken in their order: black, blue, red
    for sample in (*data.labelled, *data.validation):
        with Image.open(sample.label) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), np.array(order)[scene(int(sample.id))])
    if mask:
        assert data.palette[:3].tolist() == [list(COLOURS[order.index(index)]) for index in range(3)]


def test_binary_masks_of_0_and_255_are_background_and_foreground(unplanned, capsys):
    write_images(Path("images"), names(12))
    for number, name in enumerate(names(6)):
        write_mask(Path("masks") / name, scene(number, 2) * 255)
    assert init() == 0
    assert opened().classes == ("background", "foreground")
    assert "255 the foreground" in capsys.readouterr().out


def test_images_without_masks_and_masks_that_are_left_out_are_unlabelled(unplanned):
    folders(n_images=12, n_masks=12)
    assert init("--labelled", 4) == 0
    data = opened()
    assert (len(data.labelled), len(data.validation), len(data.unlabelled)) == (4, 2, 6)
    assert all(sample.label is None for sample in data.unlabelled)


def test_class_file_names_the_classes(unplanned):
    folders(colours=COLOURS, rgb=True)
    Path("classes.txt").write_text("sky 0 0 255\nroad 0 0 0\ncar 255 0 0\n")
    assert init("--classes", "classes.txt") == 0
    assert opened().classes == ("sky", "road", "car")


def test_class_that_only_one_image_has_is_missing_from_validation_which_is_said(unplanned, capsys):
    folders()
    write_mask(Path("masks") / "000.png", scene(0, 4))
    assert init() == 0
    assert "no validation image has the class class_3" in capsys.readouterr().err


def test_what_was_written_is_replaced_with_force_only(unplanned, capsys):
    folders()
    assert init() == 0
    Path("configs/mine_usrn.json").write_text("{}")
    message = refused(capsys)
    assert "configs/mine_usrn.json" in message
    assert "--force" in message
    assert Path("configs/mine_usrn.json").read_text() == "{}"
    write_images(Path("images"), ["new.png"])
    assert init("--force") == 0
    assert "new" in [sample.id for sample in opened().unlabelled]


def test_files_of_somebody_else_are_not_replaced_even_with_force(unplanned, capsys):
    folders()
    Path("configs/base").mkdir(parents=True)
    Path("configs/base/mine.json").write_text("{}")
    assert "Take another name" in refused(capsys, "--force")
    assert "Take another name" not in refused(capsys, "--force", name="../up")
    assert not Path("dataset").exists()


def test_data_that_make_no_run_are_refused_and_nothing_is_written(capsys):
    folders(n_images=6, n_masks=6)
    assert "every image of images has a mask" in refused(capsys)
    folders(n_images=12, n_masks=3)
    for path in sorted(Path("masks").iterdir())[3:]:
        path.unlink()
    assert "only 3 images have masks" in refused(capsys)
    folders()
    write_mask(Path("masks") / "002.png", scene(0, size=(16, 48)))
    assert "002.png (48 x 16, image 48 x 32)" in refused(capsys)
    for path in Path("masks").iterdir():
        write_mask(path, np.zeros(SIZE, np.uint8))
    assert "one class only" in refused(capsys)
    assert "cannot be read as an image" in refused(capsys, images=damaged_images())
    assert sorted(path.name for path in Path().iterdir()) == ["damaged", "images", "masks"]


def damaged_images() -> str:
    write_images(Path("damaged"), names(11))
    Path("damaged/011.png").write_bytes(b"not a picture")
    return "damaged"


def test_settings_follow_from_the_images_and_the_machine(unplanned):
    folders()
    assert init() == 0
    config, baseline = load_config("configs/mine_usrn.json"), load_config("configs/mine_baseline.json")
    assert (config.n_labeled_examples, config.num_images_all) == (5, 11)
    assert (config.pretrained, baseline.pretrained) == ("baseline", False)
    assert config.train_supervised.model_dump().items() >= config.train_unsupervised.model_dump().items()
    assert (config.train_supervised.base_size, config.train_supervised.crop_size) == (48, 32)
    of_usrn = {"name": "USRN", "experim_name": "mine_usrn", "pretrained": "baseline"}
    assert baseline.model_copy(update=of_usrn) == config


def test_settings_for_a_gpu_are_made_without_one(unplanned):
    folders()
    assert init(device="cuda") == 0
    config = load_config("configs/mine_usrn.json")
    assert (config.model.layers, config.pretrained) == (50, True)


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_without_imagenet_weights_is_said_and_usrn_starts_from_its_baseline(
    there, unplanned, monkeypatch, capsys
):
    folders()
    monkeypatch.setattr("models.imagenet.are_to_be_had", lambda *_: there)
    request = Request(name="mine", images=Path("images"), masks=Path("masks"))
    init_data(request, "cuda", torch.device("cuda"))
    config, baseline = load_config("configs/mine_usrn.json"), load_config("configs/mine_baseline.json")
    assert (baseline.pretrained, config.pretrained) == ((True, True) if there else (False, "baseline"))
    assert baseline.diff_lrs == there
    assert ("server does not answer" in capsys.readouterr().out) != there


def test_place_that_cannot_be_written_is_named(unplanned, capsys):
    folders()
    Path("dataset").write_text("a file")
    assert "dataset: " in refused(capsys)


@pytest.mark.parametrize(
    "arguments",
    [["--init_data", "x"], ["--init_data", "x", "--masks", "y", "--name", "z", "-c", "f"], ["--ignore", "many"], []],
)
def test_command_line_that_does_not_fit_is_refused(arguments):
    if arguments[:1] == ["--ignore"]:
        arguments = ["--init_data", "x", "--masks", "y", "--name", "z", *arguments]
    with pytest.raises(SystemExit):
        command_line.parse(arguments)


WHICH_RUN = {"name", "experim_name", "dataset", "data_dir"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_key_that_is_written_has_a_reason_which_is_said_and_stands_there_as_a_comment(unplanned, capsys, device):
    folders()
    assert init(device=device) == 0
    printed = capsys.readouterr().out
    for name, said in (("base/mine", "decided"), ("mine_usrn", "decided for USRN alone"), ("mine_baseline", "")):
        written = json.loads(Path(f"configs/{name}.json").read_text())
        why = written.pop("//", {})
        values = flattened({key: value for key, value in written.items() if key not in ("$schema", "base")})
        assert {key for keys in why for key in keys.split(", ")} == values.keys() - WHICH_RUN
        for keys, reason in why.items():
            decided = ", ".join(f"{key} {json.dumps(values[key])}" for key in keys.split(", "))
            assert f"\n{said}: {decided}: {reason}\n" in printed
    load_config("configs/mine_usrn.json")


def flattened(values: dict, before: str = "") -> dict:
    """Values by key, such as ``trainer.epochs``."""
    flat = {}
    for key, value in values.items():
        flat |= flattened(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return flat


def test_run_without_a_gpu_is_as_long_as_30_minutes_allow_or_as_it_is_told(unplanned, monkeypatch):
    asked = []

    def fit(config, data, device):
        asked.append(config.trainer.minutes)
        return {"factor": 3.0, "validations": 4, "config": {}}, {}

    folders()
    assert init() == 0
    before = load_config("configs/mine_usrn.json")
    monkeypatch.setattr("trainer.planning.init_data.fit_to_minutes", fit)
    for options, minutes in (((), 30), (("--minutes", 90), 90)):
        assert init("--force", *options) == 0
        after = load_config("configs/mine_usrn.json")
        assert asked.pop() == minutes
        assert after.trainer.epochs == 3 * before.trainer.epochs
        assert after.model.epoch_start_unsup == 3 * before.model.epoch_start_unsup
        assert after.trainer.minutes is None  # what was decided stands there: a run is timed once


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to time")
def test_minutes_of_a_machine_that_is_not_here_are_refused(unplanned, capsys):
    folders()
    assert "give it to main.sh there" in refused(capsys, "--minutes", 60, device="cuda")
