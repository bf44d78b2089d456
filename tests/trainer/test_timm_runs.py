"""Runs on trunks of timm: all stages, going on, prediction, export."""

import shutil

import numpy as np
import pytest
import torch

import main as command_line
from dataloaders.photometry import normalise, to_unit
from tests.trainer.loop.test_trainer import train
from trainer.prediction import load_model
from trainer.prediction.predictor import read_network
from utils.checkpoint import load_checkpoint

TRUNKS = {"timm/test_efficientnet": ("exported_program", "model.pt2"), "timm/test_vit": ("onnx", "model.onnx")}


@pytest.fixture
def runs(finished_runs, tmp_path):
    """The tiny runs, stages 1 to 3 done; what is trained here has the same subclass maps."""
    return shutil.copytree(finished_runs, tmp_path / "runs")


@pytest.mark.parametrize("trunk", TRUNKS)
def test_usrn_on_a_trunk_of_timm_goes_on_predicts_and_is_exported(runs, trunk, tmp_path):
    maps = runs / "saved" / "tiny_baseline" / "label_subcls_balanced_kmeans"
    options = (f"model.trunk={trunk}", f"label_subcls={maps}", f"trainer.save_dir={tmp_path}")
    config = runs / "tiny_usrn.json"
    whole, whole_dir = train(config, *options, "experim_name=whole_usrn")
    _, broken_dir = train(config, *options, "experim_name=broken_usrn", stop_after=3)
    resumed, _ = train(config, *options, "experim_name=broken_usrn", resume=broken_dir / "checkpoint.pth")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    best = whole_dir / "best_model.pth"
    assert load_checkpoint(best)["trunk"] == trunk
    image = np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8)
    network = read_network(best, None)[0].eval()
    images = normalise(to_unit(torch.from_numpy(image).permute(2, 0, 1)[None]))
    with torch.inference_mode():
        expected = network(images)[0].argmax(0).numpy()
    assert np.array_equal(load_model(best, device="cpu").predict(image), expected)

    format, name = TRUNKS[trunk]
    arguments = ["--config", config, "--resume", best, "--export", format, "--output", tmp_path / name]
    assert command_line.main([str(argument) for argument in arguments]) == 0
    assert (tmp_path / name).is_file()  # compared with PyTorch at three sizes before it is written
