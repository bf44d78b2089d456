"""Networks and one training step against numbers of the original implementation, from known weights."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataloaders.reading import IGNORE
from models import USRN, Baseline, build_network
from tests.parity.fill import fill_network, filled
from trainer.methods.usrn import USRNStep

DATA = Path(__file__).parents[1] / "data" / "parity"
SHAPES: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress((DATA / "state_dict_shapes.json.gz").read_bytes()))
N_SUBCLASSES = {"voc_1over32_usrn": 177, "city_1over8_usrn": 124}
N_CLASSES = {"voc": 21, "city": 19}


def network_of(run: str) -> Baseline | USRN:
    dataset, _, kind = run.split("_")
    name = {"baseline": "Baseline", "usrn": "USRN"}[kind]
    return build_network(name, N_CLASSES[dataset], N_SUBCLASSES.get(run))


def filled_network(run: str) -> Baseline | USRN:
    with torch.device("meta"):  # its own initial values would be written over
        network = network_of(run)
    return fill_network(network.to_empty(device="cpu"))


@pytest.fixture(scope="module", autouse=True)
def _forget_the_values():
    yield
    filled.cache_clear()


@pytest.mark.parametrize("run", sorted(SHAPES))
def test_state_dict_has_the_originals_names_and_shapes(run: str):
    with torch.device("meta"):  # names and shapes need no values
        state = network_of(run).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == SHAPES[run]


def test_usrn_of_voc_1over32_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = network_of("voc_1over32_usrn")
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 80.5


@pytest.mark.parametrize("run", ["voc_1over32_baseline", "voc_1over32_usrn"])
def test_evaluation_gives_the_originals_logits_and_features(run: str):
    network = filled_network(run).eval()
    with np.load(DATA / "eval_forward.npz") as expected:
        image = torch.from_numpy(expected[f"{run}.input"])
        logits = torch.from_numpy(expected[f"{run}.logits"])
        # Stage 2 runs on the baseline alone, so only its features are known.
        features = torch.from_numpy(expected[f"{run}.features"]) if run.endswith("baseline") else None
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % 8, 0, -height % 8), mode="reflect")
    with torch.no_grad():
        actual = network(padded)[..., :height, :width]
        pixel_features = network.pixel_features(padded)
    torch.testing.assert_close(actual, logits, atol=1e-4, rtol=0)
    if features is not None:
        halved = F.interpolate(pixel_features, scale_factor=0.5, mode="bilinear", align_corners=True)
        torch.testing.assert_close(halved, features, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def training_step() -> tuple[dict[str, Tensor], USRN, dict]:
    """Losses, network after the backward pass, and what the original has for both.

    In float64: rounding in float32 moves the trunk's gradients by up to 0.6 % with the processor and the
    number of threads, which is most of the tolerance.
    """
    expected = json.loads((DATA / "train_step_expected.json").read_text())["voc_1over32_usrn"]
    with np.load(DATA / "train_step_inputs.npz") as arrays:
        inputs = {name.removeprefix("voc_1over32_usrn."): torch.from_numpy(arrays[name]) for name in arrays}
    weak, strong = inputs["x_ul"].double().unbind(1)
    x = inputs["x_l"].double()
    y, s = (
        torch.where(target == 255, IGNORE, target.long()) for target in (inputs["target_l"], inputs["target_l_subcls"])
    )

    network = filled_network("voc_1over32_usrn").double().train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    sizes = torch.tensor(expected["split_list"])
    class_of_subclass = torch.arange(len(sizes)).repeat_interleave(sizes)
    losses = USRNStep(network, class_of_subclass)(x, y, s, weak, strong)
    losses["total"].backward()
    return losses, network, expected


@pytest.mark.parametrize("name", ["total", "Ls", "Ls_sub", "Lu_sub", "Lu_reg"])
def test_training_step_gives_the_originals_losses(training_step, name: str):
    losses, _, expected = training_step
    assert losses[name].item() == pytest.approx(expected[name], rel=1e-3)


def test_training_step_gives_the_originals_gradients(training_step):
    _, network, expected = training_step
    parameters = dict(network.named_parameters())
    norms = {name: parameters[name].grad.norm().item() for name in expected["grad_norm"]}
    assert norms == pytest.approx(expected["grad_norm"], rel=1e-2)


def test_training_step_moves_running_statistics_as_the_original_does(training_step):
    _, network, expected = training_step
    state = network.state_dict()
    sums = {name: state[name].abs().sum().item() for name in expected["bn_abs_sum_after"]}
    # The three batches count with weights 0.081, 0.09 and 0.1, so the order in which they pass shows here.
    assert sums == pytest.approx(expected["bn_abs_sum_after"], rel=1e-4)
    assert all(n == 3 for name, n in state.items() if name.endswith("num_batches_tracked"))
