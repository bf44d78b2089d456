"""``--export``: the file by itself gives PyTorch's logits for any number and size of images."""

import io
import json

import numpy as np
import onnxruntime
import pytest
import torch

import main as command_line
from dataloaders import photometry
from models import build_network
from tests.conftest import write_tiny_configs
from trainer.prediction import export, load_model
from trainer.prediction.export import export_network
from trainer.prediction.predictor import read_network
from utils.checkpoint import save_checkpoint
from utils.errors import UsageError

CLASSES = ("road", "sky", "tree", "car", "person")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "best.pth"
    torch.manual_seed(3)
    network = build_network("USRN", 5, 9, layers=14, out_dim=8, base_width=4)
    save_checkpoint(path, network, epoch=1, best=0.5, classes=CLASSES, colours=np.zeros((5, 3), np.uint8))
    return path


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_model(checkpoint, device="cpu")


def test_a_foreign_trunk_that_the_exporter_cannot_do_with_is_one_message(checkpoint, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("no translation of aten::rare\nand a hundred lines")

    monkeypatch.setitem(export.FORMATS, "onnx", fail)
    network = build_network("Baseline", 5, out_dim=8, trunk="timm/test_efficientnet")
    with pytest.raises(UsageError, match=r"timm/test_efficientnet cannot be .* \(no translation of aten::rare\)"):
        export_network(network, CLASSES, "onnx", tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="aten::rare"):  # with a network of ours it is a fault of ours
        export_to(tmp_path / "net.onnx", checkpoint)


def export_to(path, checkpoint):
    network, classes, _, _ = read_network(checkpoint, None)
    export_network(network, classes, "onnx", path)


@pytest.fixture(scope="module")
def exported(checkpoint, demo_set, tmp_path_factory):
    """A function from images, float32 (N, 3, H, W), to logits, for each format; and the classes in its file."""
    folder = tmp_path_factory.mktemp("exported")
    config, _ = write_tiny_configs(demo_set, checkpoint.parent, num_workers=0)
    for format, name in (("onnx", "net.onnx"), ("exported_program", "net.pt2")):
        photometry._by_channel.cache_clear()  # as in a process that has done nothing else
        arguments = ["-c", config, "--resume", checkpoint, "--export", format, "--output", folder / name]
        assert command_line.main([str(argument) for argument in arguments]) == 0
    session = onnxruntime.InferenceSession(folder / "net.onnx", providers=["CPUExecutionProvider"])
    extra = {"classes.json": ""}
    program = torch.export.load(folder / "net.pt2", extra_files=extra).module()
    assert sorted(path.name for path in folder.iterdir()) == ["net.onnx", "net.pt2"]  # each is one file
    return {
        "onnx": lambda images: session.run(["logits"], {"image": images})[0],
        "exported_program": lambda images: program(torch.from_numpy(images)).detach().numpy(),
    }, {"onnx": session.get_modelmeta().custom_metadata_map["classes"], "exported_program": extra["classes.json"]}


SIZES = ((64, 64), (45, 83), (17, 120), (200, 31), (17, 17))
SMALL = ((3, 40), (4, 3), (2, 5), (16, 9))  # reflected more than once, or smaller than the network's stride


@pytest.mark.parametrize(
    ("format", "size"),
    [*(("onnx", size) for size in SIZES + SMALL), *(("exported_program", size) for size in SIZES)],
)
def test_export_predicts_what_predict_does(exported, model, format, size):
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    run = exported[0][format]
    given = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    for n in (1, 3):
        logits = run(given[:n])
        assert logits.shape == (n, 5, *size)
        for image, found in zip(images, logits, strict=False):
            expected = np.log(model.probabilities(image))
            np.testing.assert_allclose(found - found.max(0), expected - expected.max(0), atol=1e-3)


@pytest.mark.parametrize("format", ["onnx", "exported_program"])
def test_file_names_its_classes(exported, format):
    assert json.loads(exported[1][format]) == list(CLASSES)


def test_export_that_gives_something_else_is_not_written(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(export.FORMATS, "onnx", lambda network, _: (b"file", lambda image: network(image) + 0.1))
    with pytest.raises(RuntimeError, match="not written"):
        export_to(tmp_path / "net.onnx", checkpoint)
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("name", ["photo.jpg", "net.pt2", "net"])
def test_file_of_another_kind_is_not_replaced(checkpoint, tmp_path, name):
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(UsageError, match=rf"{name}: the name of an export as onnx ends with \.onnx"):
        export_to(tmp_path / name, checkpoint)
    assert (tmp_path / name).read_bytes() == b"somebody's"


def test_missing_packages_are_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else io)
    with pytest.raises(UsageError, match="pip install onnxscript"):
        export_to(tmp_path / "net.onnx", checkpoint)
