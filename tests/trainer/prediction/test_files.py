"""``--predict``: which images, what is written and under which names, and what goes wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main as command_line
from models import build_network
from trainer.prediction import load_model
from trainer.prediction.files import find_images, output_names
from utils.checkpoint import save_checkpoint

CLASSES = tuple("abcdefgh")
COLOURS = np.arange(24, dtype=np.uint8).reshape(8, 3) * 10


def write_picture(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (41, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.BICUBIC).convert(mode).save(path)
    return path


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    torch.manual_seed(3)
    network = build_network("Baseline", 8, layers=14, out_dim=8, base_width=4)
    save_checkpoint(tmp_path / "best.pth", network, epoch=1, best=0.5, classes=CLASSES, colours=COLOURS)
    return tmp_path / "best.pth"


@pytest.fixture
def predict(checkpoint, tiny_configs, tmp_path):
    """``--predict`` of a source to ``tmp_path/out``; the exit code."""

    def run(source: Path, *more: str) -> int:
        arguments = ["-c", tiny_configs[0], "--resume", checkpoint, "--output", tmp_path / "out", "--predict", source]
        return command_line.main([*map(str, arguments), *more])

    return run


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_one_image_gets_a_mask_in_the_classes_colours_an_overlay_and_a_confidence_map(predict, checkpoint, tmp_path):
    path = write_picture(tmp_path / "photo.png")
    assert predict(path, "--set", "predict.confidence=true") == 0
    out = tmp_path / "out"
    assert files(out) == ["confidence/photo.png", "masks/photo.png", "overlays/photo.png", "predictions.json"]
    labels, confidence = load_model(checkpoint, device="cpu").predict_with_confidence(path)
    with Image.open(out / "masks" / "photo.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), labels)
        assert np.array_equal(np.asarray(mask.convert("RGB")), COLOURS[labels])
    assert np.array_equal(opened(out / "confidence" / "photo.png"), np.round(255 * confidence).astype(np.uint8))
    half = (opened(path).astype(float) + COLOURS[labels]) / 2
    assert np.abs(opened(out / "overlays" / "photo.png") - half).max() <= 0.5
    assert json.loads((out / "predictions.json").read_text())["classes"] == list(CLASSES)


def test_folder_keeps_its_subfolders_and_images_that_differ_in_suffix_keep_it(predict, tmp_path):
    for name in ("a.png", "a.bmp", "deep/er/a.jpg", "deep/b.png"):
        write_picture(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    assert predict(tmp_path / "images") == 0
    expected = ["a.bmp.png", "a.png.png", "deep/b.png", "deep/er/a.png"]
    assert files(tmp_path / "out" / "masks") == files(tmp_path / "out" / "overlays") == expected


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["x/a.jpg", "x/b.jpg"], ["a", "b"]),
        (["x/y/a.jpg", "x/b.jpg"], ["y/a", "b"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.png", "a.jpg.png"]),
        (["A.jpg", "a.png"], ["A.jpg", "a.png"]),
        (["../a.jpg", "b.v2.jpg"], ["a", f"{Path.cwd().name}/b.v2"]),
    ],
)
def test_names_are_the_paths_below_the_common_folder_and_never_clash(images, names):
    assert output_names([Path(image) for image in images]) == names


def test_list_names_images_a_line(predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "images" / "with space.png")
    write_picture(tmp_path / "elsewhere" / "b.png")
    Path("list.txt").write_text(f"images/with space.png\n\n{tmp_path}/elsewhere/b.png\nimages/with space.png\n")
    assert find_images("list.txt", Path("out")) == [Path("images/with space.png"), tmp_path / "elsewhere" / "b.png"]
    assert predict(Path("list.txt")) == 0
    assert files(tmp_path / "out" / "masks") == ["elsewhere/b.png", "images/with space.png"]


def test_earlier_predictions_are_replaced_and_not_predicted(predict, tmp_path, checkpoint, tiny_configs):
    write_picture(tmp_path / "images" / "a.png")
    arguments = ["-c", tiny_configs[0], "--resume", checkpoint, "--predict", tmp_path / "images"]
    for _ in range(2):
        assert command_line.main([*map(str, arguments), "--output", str(tmp_path / "images" / "out")]) == 0
    assert files(tmp_path / "images" / "out") == ["masks/a.png", "overlays/a.png", "predictions.json"]


def test_folder_of_something_else_is_not_written_to(predict, tmp_path, capsys):
    image = write_picture(tmp_path / "photo.png")
    mine = write_picture(tmp_path / "out" / "masks" / "photo.png").read_bytes()
    assert predict(image) == 2
    assert "something else than predictions" in capsys.readouterr().err
    assert (tmp_path / "out" / "masks" / "photo.png").read_bytes() == mine


def test_images_that_cannot_be_read_are_listed_after_the_others_are_done(predict, tmp_path, capsys):
    write_picture(tmp_path / "images" / "good.png")
    write_picture(tmp_path / "images" / "last.png")
    (tmp_path / "images" / "damaged.png").write_bytes(b"\x89PNG")
    (tmp_path / "images" / "empty.jpg").touch()
    assert predict(tmp_path / "images") == 2
    message = capsys.readouterr().err
    assert "2 of 4 images are left out" in message
    assert "images/damaged.png" in message
    assert "images/empty.jpg" in message
    assert files(tmp_path / "out" / "masks") == ["good.png", "last.png"]


def test_logits_that_are_not_finite_give_no_mask(predict, checkpoint, tmp_path, capsys):
    contents = torch.load(checkpoint, weights_only=True)
    contents["state_dict"]["module.classifier.1.weight"] *= 1e38
    torch.save(contents, checkpoint)
    assert predict(write_picture(tmp_path / "photo.png")) == 2
    message = capsys.readouterr().err
    assert "photo.png: the network: its logits are not finite in " in message
    assert not (tmp_path / "out" / "masks" / "photo.png").exists()


def test_image_too_large_for_the_gpu_names_the_setting(predict, tmp_path, capsys, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("trainer.prediction.predictor.Predictor.predict", out_of_memory)
    assert predict(write_picture(tmp_path / "photo.png")) == 2
    assert "predict.window" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_images_of_other_modes_are_predicted_as_rgb(predict, checkpoint, tmp_path, mode):
    path = write_picture(tmp_path / "photo.png", mode=mode)
    assert predict(path) == 0
    with Image.open(path) as image:
        expected = load_model(checkpoint, device="cpu").predict(image.convert("RGB"))
    assert np.array_equal(opened(tmp_path / "out" / "masks" / "photo.png"), expected)


def test_nothing_to_predict_is_named(predict, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").touch()
    for source, problem in (("empty", "no image in it"), ("empty.txt", "no image in it"), ("gone", "no such image")):
        assert predict(tmp_path / source) == 2
        message = capsys.readouterr().err
        assert f"--predict {tmp_path / source}" in message
        assert problem in message
    assert not (tmp_path / "out").exists()


def test_two_processes_share_the_images_and_gather_what_failed(predict, tmp_path, capfd):
    images = [write_picture(tmp_path / "images" / f"{i}.png", seed=i) for i in range(5)]
    images[3].write_bytes(b"")
    assert predict(tmp_path / "images", "--processes", "2", "--device", "cpu") == 2
    assert "1 of 5 images are left out" in capfd.readouterr().err
    assert files(tmp_path / "out" / "masks") == ["0.png", "1.png", "2.png", "4.png"]


def test_output_without_something_to_write_there_is_refused():
    with pytest.raises(SystemExit):
        command_line.parse(["-c", "x.json", "--output", "out"])
