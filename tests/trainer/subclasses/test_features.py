import numpy as np
import pytest
import torch

from dataloaders import open_data
from dataloaders.photometry import normalise, to_unit
from dataloaders.streams import EvaluationStream
from models import build_network
from trainer.subclasses.features import features_dir, save_features
from utils.config_file import load_config
from utils.errors import NotFiniteError

CPU = torch.device("cpu")


@pytest.fixture
def run(tiny_configs):
    config = load_config(tiny_configs[0])
    data = open_data(config)
    torch.manual_seed(0)
    return config, data, build_network("Baseline", len(data.classes), layers=14, out_dim=8, base_width=4)


def test_feature_is_the_pixel_feature_halved_as_float16(run):
    config, data, network = run
    assert save_features(config, data, network, CPU) == 8
    network.eval()
    item = EvaluationStream(data, data.labelled)[3]
    with torch.no_grad():
        features = network.pixel_features(normalise(to_unit(item["image"].unsqueeze(0))))
    height, width = (side // 2 for side in features.shape[2:])
    expected = torch.nn.functional.interpolate(features, (height, width), mode="bilinear", align_corners=True)
    found = np.load(features_dir(config) / f"{item['sample'].id}.npy")
    assert found.dtype == np.float16
    assert found.shape == (8, item["image"].shape[1] // 8, item["image"].shape[2] // 8)
    assert np.abs(found - expected[0].half().numpy()).max() < 2e-3


def test_only_labelled_images_get_features(run):
    config, data, network = run
    save_features(config, data, network, CPU)
    assert {path.stem for path in features_dir(config).iterdir()} == {sample.id for sample in data.labelled}


def test_features_that_are_not_finite_are_refused(run):
    config, data, network = run
    network.state_dict()["encoder.decoder.last_conv.5.weight"] *= 1e8  # beyond what float16 holds
    with pytest.raises(NotFiniteError, match="its feature is not finite; the baseline has diverged"):
        save_features(config, data, network, CPU)
    assert not list(features_dir(config).iterdir())
