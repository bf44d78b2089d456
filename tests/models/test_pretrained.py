"""Weights of a trunk from anybody's file: found, put into both branches, refused where they do not fit."""

import json
import struct
from pathlib import PurePosixPath

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

import main as command_line
from models import Baseline, build_network
from models.pretrained import load_trunk, read_weights
from models.resnet import SUBCLASS_LAYERS
from tests.conftest import refused
from trainer.loop.resume import NEWEST
from utils.errors import UsageError
from utils.logger import log

SMALL = {"layers": 14, "out_dim": 8, "base_width": 4}


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    """A ResNet-50 of torchvision with random weights and running statistics that are not the initial ones."""
    torch.manual_seed(0)
    state = resnet50().state_dict()
    return {name: torch.rand_like(v) if "running" in name else v for name, v in state.items()}


def test_weights_reach_trunk_and_subclass_copies(torchvision_state):
    network = build_network("USRN", 3, 4, out_dim=8)
    heads = [p.clone() for p in network.head_parameters()]
    load_trunk(network, torchvision_state, "weights.pth")
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


def test_copies_of_pretrained_weights_are_independent(torchvision_state):
    network = build_network("USRN", 3, 4, out_dim=8)
    load_trunk(network, torchvision_state, "weights.pth")
    backbone = network.encoder.backbone
    before = backbone.layer3[0].conv2.weight.clone()
    with torch.no_grad():
        backbone.layer3_aux[0].conv2.weight.zero_()
    assert torch.equal(backbone.layer3[0].conv2.weight, before)
    assert torch.equal(torchvision_state["layer3.0.conv2.weight"], before)


def test_weights_without_batch_counters_are_taken(torchvision_state):
    old = {name: v for name, v in torchvision_state.items() if not name.endswith("num_batches_tracked")}
    network = Baseline(3, out_dim=8)
    load_trunk(network, old, "weights.pth")
    assert torch.equal(network.encoder.backbone.bn1.running_var, old["bn1.running_var"])


def test_weights_that_do_not_fit_are_named_and_change_nothing(torchvision_state):
    state = dict(torchvision_state)
    del state["layer1.0.conv1.weight"]
    state["layer4.2.bn3.bias"] = torch.zeros(7)
    state["layer3.6.bn1.weight"] = torch.zeros(1)
    state["bn1.weight"] = torch.full((64,), torch.nan)
    network = Baseline(3, out_dim=8)
    before = {name: v.clone() for name, v in network.state_dict().items()}
    with pytest.raises(UsageError) as error:
        load_trunk(network, state, "weights.pth")
    assert "missing: layer1.0.conv1.weight;" in str(error.value)
    assert "not in this network: layer3.6.bn1.weight;" in str(error.value)
    assert "layer4.2.bn3.bias (7,) in place of (2048,)" in str(error.value)
    assert "no weights: bn1.weight holds values that are not finite" in str(error.value)
    assert all(torch.equal(v, before[name]) for name, v in network.state_dict().items())


def test_weights_of_another_depth_give_a_short_message(torchvision_state):
    with pytest.raises(UsageError, match=r"not in this network: .* and \d+ more$") as error:
        load_trunk(Baseline(3, layers=26, out_dim=8), torchvision_state, "weights.pth")
    assert len(str(error.value)) < 400


def test_every_key_of_a_narrow_trunk_differs_in_shape(torchvision_state):
    with pytest.raises(UsageError, match=r"conv1.weight \(64, 3, 7, 7\) in place of \(8, 3, 7, 7\)"):
        load_trunk(Baseline(3, out_dim=8, base_width=8), torchvision_state, "weights.pth")


def small_trunk(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return Baseline(3, **SMALL).encoder.backbone.state_dict()


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


TRUNK, OTHER = small_trunk(1), small_trunk(2)
HEAD = {"weight": torch.ones(2, 2)}
FILES_OF = {
    "torchvision": TRUNK | under("fc.", HEAD),
    "SwAV": under("module.", TRUNK) | under("module.projection_head.0.", HEAD) | under("module.prototypes.", HEAD),
    "MoCo v1, v2": {"epoch": 200, "arch": "resnet50", "state_dict": under("module.encoder_q.", TRUNK)
                    | under("module.encoder_q.fc.0.", HEAD) | under("module.encoder_k.", OTHER)
                    | {"module.queue": torch.ones(4, 4)}, "optimizer": {"state": {0: under("momentum.", HEAD)}}},
    "MoCo v3": {"state_dict": under("module.momentum_encoder.", OTHER) | under("module.base_encoder.", TRUNK)},
    "DINO, trunk": TRUNK,
    "DINO, whole": {"student": under("module.backbone.", OTHER), "teacher": under("backbone.", TRUNK), "epoch": 100},
    "DenseCL, trunk": {"state_dict": TRUNK},
    "DenseCL, whole": {"state_dict": under("backbone.", TRUNK) | under("encoder_q.0.", TRUNK)
                       | under("encoder_k.0.", OTHER)},
    "timm, averaged": {"state_dict": OTHER, "state_dict_ema": TRUNK},
    "Lightning": {"state_dict": under("model.backbone.", TRUNK)},
}  # fmt: skip


@pytest.mark.parametrize("author", FILES_OF)
def test_the_trunk_is_found_in_the_files_of_many_authors(author, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(log, "info", lines.append)
    torch.save(FILES_OF[author], tmp_path / "weights.pth")
    network = Baseline(3, **SMALL)
    load_trunk(network, read_weights(tmp_path / "weights.pth"), "weights.pth")
    found = network.encoder.backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in TRUNK.items())
    assert f"weights.pth: {len(TRUNK)} tensors" in lines[0]


def test_what_was_taken_from_where_and_what_was_left_out_is_said(monkeypatch):
    lines = []
    monkeypatch.setattr(log, "info", lines.append)
    load_trunk(Baseline(3, **SMALL), under("module.", TRUNK | under("fc.", HEAD)), "weights.pth")
    assert lines == [
        f"weights.pth: {len(TRUNK)} tensors under module.* are the trunk's weights; left out: module.fc.weight"
    ]


def test_a_checkpoint_of_ours_gives_its_trunk(finished_runs):
    network = Baseline(3, **SMALL)
    for run in ("tiny_baseline", "tiny_usrn"):
        path = finished_runs / "saved" / run / NEWEST
        load_trunk(network, read_weights(path), str(path))
        expected = torch.load(path, weights_only=True)["state_dict"]
        for name, value in network.encoder.backbone.state_dict().items():
            assert torch.equal(value, expected[f"module.encoder.backbone.{name}"])


def test_a_file_of_several_trunks_is_refused_with_their_names():
    several = under("left.", TRUNK) | under("right.", OTHER)
    with pytest.raises(UsageError, match=r"several trunks: left\., right\."):
        load_trunk(Baseline(3, **SMALL), several, "weights.pth")


def test_a_file_without_a_trunk_says_what_it_holds():
    with pytest.raises(UsageError, match=r"holds none of this network's trunk .* It holds blocks\.0\.weight"):
        load_trunk(Baseline(3, **SMALL), {"blocks.0.weight": torch.ones(2)}, "weights.pth")


def write_safetensors(path, weights: dict[str, Tensor], **changes) -> None:
    """As the format is documented; ``changes`` are made to the header's entry of the first tensor."""
    kinds = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, value in weights.items():
        own = value.numpy().tobytes()
        shape = list(value.shape)
        header[name] = {"dtype": kinds[value.dtype], "shape": shape, "data_offsets": [len(data), len(data) + len(own)]}
        data += own
    header[next(iter(weights))] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_safetensors_are_read_whatever_the_file_is_called(tmp_path):
    half = {name: value.half() if value.is_floating_point() else value for name, value in TRUNK.items()}
    write_safetensors(tmp_path / "model.bin", {"empty": torch.ones(0, 3), "scalar": torch.tensor(2.0), **half})
    weights = read_weights(tmp_path / "model.bin")
    assert weights["empty"].shape == (0, 3)
    assert weights["scalar"] == 2
    assert all(weights[name].equal(value) for name, value in half.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "F99"}, "a.dtype"),
        ({"shape": [3]}, "the place of a"),
        ({"shape": [-2]}, "a.shape"),
        ({"shape": [2**62, 4]}, "the place of a"),
        ({"data_offsets": [0, 4]}, "the place of a"),
        ({"data_offsets": [4, 12]}, "the place of"),
        ({"data_offsets": [0, 10**12]}, "the place of a"),
        ({"data_offsets": "none"}, "a.data_offsets"),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, changes, message):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": torch.ones(2), "b": torch.ones(3)}, **changes)
    with pytest.raises(UsageError, match=f"pretrained: {path}: cannot be read as weights.*{message}"):
        read_weights(path)


def test_safetensors_cut_off_anywhere_or_too_long_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": torch.ones(2), "b": torch.ones(3)})
    whole = path.read_bytes()
    repeated = b'{"a": {}, "a": {}}'
    for content in [whole[:end] for end in range(len(whole))] + [
        whole + b"\0", struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 10**5) + b'{"a":' * 20_000, struct.pack("<Q", len(repeated)) + repeated,
    ]:  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read as weights"):
            read_weights(path)


@pytest.mark.parametrize("make", ["missing", "folder", "code"])
def test_files_that_cannot_be_weights_are_refused_by_a_run(tmp_path, tiny_configs, capsys, make):
    path = tmp_path / "weights.pth"
    if make == "folder":
        path.mkdir()
    elif make == "code":
        torch.save({"conv1.weight": PurePosixPath("a")}, path)
    message = refused(capsys, "--config", tiny_configs[0], "--set", f"pretrained={path}")
    assert str(path) in message
    assert {"missing": "No such file", "folder": "it is a folder", "code": "PurePosixPath"}[make] in message


def test_a_run_whose_pretrained_file_has_changed_is_another_run(tmp_path, tiny_configs, capsys):
    path = tmp_path / "weights.pth"
    settings = ["--config", tiny_configs[0], "--set", f"pretrained={path}"]
    torch.save(TRUNK, path)
    command_line.main([*map(str, settings), "--set", "trainer.epochs=1"])
    torch.save(OTHER, path)
    assert "differs in the pretrained weights" in refused(capsys, *settings, "--set", "trainer.epochs=1")
