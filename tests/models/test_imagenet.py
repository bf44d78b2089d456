"""ImageNet weights: into the trunk and its copies, and every way in which they can be wrong."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from models import Baseline, build_network
from models.imagenet import FILES, WEIGHTS, imagenet_weights, load_imagenet_weights
from models.resnet import SUBCLASS_LAYERS
from utils.errors import UsageError


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    """A ResNet-50 of torchvision with random weights and running statistics that are not the initial ones."""
    torch.manual_seed(0)
    state = resnet50().state_dict()
    return {name: torch.rand_like(v) if "running" in name else v for name, v in state.items()}


def no_connection(*args, **kwargs):
    raise URLError("no route to host")


def test_weights_reach_trunk_and_subclass_copies(torchvision_state):
    network = build_network("USRN", 3, 4, out_dim=8)
    heads = [p.clone() for p in network.head_parameters()]
    load_imagenet_weights(network, torchvision_state)
    backbone = network.encoder.backbone.state_dict()
    for name, value in torchvision_state.items():
        if name.startswith("fc."):
            assert name not in backbone
            continue
        assert torch.equal(backbone[name], value), name
        layer, _, rest = name.partition(".")
        if layer in SUBCLASS_LAYERS:
            assert torch.equal(backbone[f"{layer}_aux.{rest}"], value), name
    assert all(torch.equal(p, before) for p, before in zip(network.head_parameters(), heads, strict=True))


def test_copies_of_imagenet_weights_are_independent(torchvision_state):
    network = build_network("USRN", 3, 4, out_dim=8)
    load_imagenet_weights(network, torchvision_state)
    backbone = network.encoder.backbone
    before = backbone.layer3[0].conv2.weight.clone()
    with torch.no_grad():
        backbone.layer3_aux[0].conv2.weight.zero_()
    assert torch.equal(backbone.layer3[0].conv2.weight, before)
    assert torch.equal(torchvision_state["layer3.0.conv2.weight"], before)


def test_weights_without_batch_counters_are_taken(torchvision_state):
    old = {name: v for name, v in torchvision_state.items() if not name.endswith("num_batches_tracked")}
    network = Baseline(3, out_dim=8)
    load_imagenet_weights(network, old)
    assert torch.equal(network.encoder.backbone.bn1.running_var, old["bn1.running_var"])


def test_weights_that_do_not_fit_are_named_and_change_nothing(torchvision_state):
    state = dict(torchvision_state)
    del state["layer1.0.conv1.weight"]
    state["layer4.2.bn3.bias"] = torch.zeros(7)
    state["surplus.weight"] = torch.zeros(1)
    state["bn1.weight"] = torch.full((64,), torch.nan)
    network = Baseline(3, out_dim=8)
    before = {name: v.clone() for name, v in network.state_dict().items()}
    with pytest.raises(UsageError) as error:
        load_imagenet_weights(network, state)
    assert "missing: layer1.0.conv1.weight;" in str(error.value)
    assert "not in this network: surplus.weight;" in str(error.value)
    assert "layer4.2.bn3.bias (7,) in place of (2048,)" in str(error.value)
    assert "no weights: bn1.weight holds values that are not finite" in str(error.value)
    assert all(torch.equal(v, before[name]) for name, v in network.state_dict().items())


def test_weights_of_another_depth_give_a_short_message(torchvision_state):
    with pytest.raises(UsageError, match=r"not in this network: .* and \d+ more$") as error:
        load_imagenet_weights(Baseline(3, layers=26, out_dim=8), torchvision_state)
    assert len(str(error.value)) < 400


def test_every_key_of_a_narrow_trunk_differs_in_shape(torchvision_state):
    with pytest.raises(UsageError, match=r"conv1.weight \(64, 3, 7, 7\) in place of \(8, 3, 7, 7\)"):
        load_imagenet_weights(Baseline(3, out_dim=8, base_width=8), torchvision_state)


@pytest.mark.parametrize("name", [FILES[50], Path(WEIGHTS[50].url).name])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_there_is_read_without_network(tmp_path, monkeypatch, name: str, zipped: bool):
    monkeypatch.setattr("torch.hub.download_url_to_file", no_connection)
    # The files of 2017 hold Parameters in the format before zip.
    saved = {"conv1.weight": torch.nn.Parameter(torch.rand(2, 3))}
    torch.save(saved, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert torch.equal(imagenet_weights(50, tmp_path)["conv1.weight"], saved["conv1.weight"])


def test_a_missing_file_is_fetched_into_the_folder_with_its_hash_checked(tmp_path, monkeypatch):
    fetched = []

    def download(url, destination, hash_prefix, progress):
        fetched.append((url, hash_prefix))
        torch.save({"bn1.bias": torch.ones(2)}, destination)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    for _ in range(2):
        assert torch.equal(imagenet_weights(101, tmp_path / "pretrained")["bn1.bias"], torch.ones(2))
    assert fetched == [(WEIGHTS[101].url, "63fe2227")]


@pytest.mark.parametrize("layers", [50, 101])
def test_a_missing_file_that_cannot_be_fetched_says_what_to_do(tmp_path, monkeypatch, layers: int):
    monkeypatch.setattr("torch.hub.download_url_to_file", no_connection)
    with pytest.raises(UsageError) as error:
        imagenet_weights(layers, tmp_path)
    assert str(tmp_path / FILES[layers]) in str(error.value)
    assert '"pretrained": false' in str(error.value)
    assert "no route to host" in str(error.value)


@pytest.mark.parametrize("name", [FILES[50], Path(WEIGHTS[50].url).name])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut off"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} cannot be read"):
        imagenet_weights(50, tmp_path)


def test_depths_without_imagenet_weights_say_so(tmp_path):
    with pytest.raises(UsageError, match="14 layers.*false"):
        imagenet_weights(14, tmp_path)
