"""A checkpoint's network, read off the names and shapes of its weights."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from models import build_network
from models.architecture import infer_architecture
from models.resnet import BLOCKS

SHAPES = Path(__file__).parents[1] / "data" / "parity" / "state_dict_shapes.json.gz"


def on_meta(**architecture) -> dict[str, torch.Tensor]:
    with torch.device("meta"):  # names and shapes need no values
        return build_network(**architecture).state_dict()


@pytest.mark.parametrize("layers", sorted(BLOCKS))
@pytest.mark.parametrize(("name", "n_subclasses"), [("Baseline", None), ("USRN", 177)])
@pytest.mark.parametrize(("n_classes", "out_dim", "base_width"), [(21, 256, 64), (2, 8, 4), (250, 48, 24)])
def test_every_setting_of_the_network_is_found(layers, name, n_subclasses, n_classes, out_dim, base_width):
    architecture = {
        "name": name,
        "n_classes": n_classes,
        "n_subclasses": n_subclasses,
        "layers": layers,
        "out_dim": out_dim,
        "base_width": base_width,
        "trunk": None,
    }
    assert infer_architecture(on_meta(**architecture)) == architecture


def test_the_originals_checkpoints_are_published_networks():
    runs = json.loads(gzip.decompress(SHAPES.read_bytes()))
    found = {
        run: infer_architecture({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
        for run, shapes in runs.items()
    }
    assert {(run["layers"], run["out_dim"], run["base_width"]) for run in found.values()} == {(50, 256, 64)}
    assert found["voc_1over32_usrn"]["n_subclasses"] == 177
    assert found["voc_1over32_baseline"]["name"] == "Baseline"


def test_weights_of_another_network_are_refused():
    state = on_meta(name="Baseline", n_classes=3, layers=14)
    with pytest.raises(ValueError, match="no ResNet"):
        infer_architecture({name: value for name, value in state.items() if "layer3" not in name})
    with pytest.raises(ValueError, match=r"classifier\.1\.weight are missing"):
        infer_architecture({name: value for name, value in state.items() if "classifier" not in name})
