"""Evaluation by windows, scales and mirroring, against the whole image and against the same written plainly."""

import numpy as np
import pytest
import torch

from models import build_network
from trainer.prediction.predictor import Predictor
from trainer.prediction.protocol import Protocol, slide
from trainer.prediction.whole_image import WholeImages
from utils.config_file import load_config
from utils.config_sections import PredictConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("Baseline", 3, None, layers=14, base_width=4, out_dim=8).eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape[:-2], 3, *shape[-2:]), generator=torch.Generator().manual_seed(1)).byte()


def protocol(network, tiny_configs, *overrides: str) -> Protocol:
    return Protocol(network, CPU, load_config(tiny_configs[0], list(overrides)))


@pytest.mark.parametrize("size", [(40, 48), (48, 31)])
def test_slide_is_whole_where_the_window_holds_the_image(network, tiny_configs, size):
    batch = images(1, *size)
    (whole,) = protocol(network, tiny_configs)(batch, [size])
    (slid,) = protocol(network, tiny_configs, "evaluation.mode=slide", "evaluation.window=48")(batch, [size])
    assert torch.allclose(whole.softmax(0), slid.softmax(0), rtol=0, atol=1e-6)


def test_slide_is_the_mean_softmax_of_windows_at_two_thirds_of_their_side(network):
    image = images(100, 70)
    whole = WholeImages(network, CPU)
    total, count = torch.zeros(3, 100, 70), torch.zeros(100, 70)
    for top in (0, 32, 52):  # the third ends at the edge
        for left in (0, 22):
            crop = image[:, top : top + 48, left : left + 48]
            total[:, top : top + 48, left : left + 48] += whole(crop.unsqueeze(0), [(48, 48)])[0].softmax(0)
            count[top : top + 48, left : left + 48] += 1
    assert torch.allclose(slide(image, whole, 48).exp(), total / count, rtol=0, atol=1e-5)  # batches round otherwise


def test_windows_go_through_the_network_in_batches():
    seen = []

    def logits_of(crops, sizes):
        seen.append(len(crops))
        return [torch.zeros(3, *size) for size in sizes]

    probabilities = slide(images(1024, 2048), logits_of, 720).exp()
    assert seen == [8]  # four by two
    assert torch.allclose(probabilities, torch.full_like(probabilities, 1 / 3))


def test_impossible_class_stays_finite_and_what_is_not_finite_stays_so():
    def logits_of(crops, sizes):
        return [torch.tensor([0.0, -1e4, 0.0]).view(3, 1, 1).expand(3, *size) for size in sizes]

    assert slide(images(8, 8), logits_of, 32).isfinite().all()
    assert slide(images(8, 8), lambda *_: [torch.full((3, 8, 8), torch.nan)], 32).isnan().all()


def test_scales_and_mirroring_are_those_of_prediction(network, tiny_configs):
    views = ["evaluation.scales=[0.75,1.0,1.5]", "evaluation.flip=true"]
    (logits,) = protocol(network, tiny_configs, *views)(images(1, 40, 53), [(40, 53)])
    settings = PredictConfig(scales=[0.75, 1.0, 1.5], flip=True)
    predictor = Predictor(network, classes=("a", "b", "c"), palette=np.zeros((256, 3), np.uint8), settings=settings)
    image = images(1, 40, 53)[0].permute(1, 2, 0).numpy()
    assert np.allclose(predictor.probabilities(image), logits.softmax(0).numpy(), atol=1e-6)
    plain = protocol(network, tiny_configs)(images(1, 40, 53), [(40, 53)])[0]
    assert not torch.allclose(logits, plain, atol=1e-3)


def test_mirrored_image_alone_gives_the_mirrored_logits(network, tiny_configs):
    batch = images(1, 40, 48)
    flipping = protocol(network, tiny_configs, "evaluation.flip=true")
    (logits,), (mirrored,) = (flipping(of, [(40, 48)]) for of in (batch, batch.flip(-1)))
    assert torch.allclose(logits, mirrored.flip(-1), atol=1e-5)
