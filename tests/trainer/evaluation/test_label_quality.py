"""How right pseudo labels are: the counts, and what they say."""

import pytest
import torch

from dataloaders.reading import IGNORE
from models import build_network
from trainer.evaluation.label_quality import COUNTED_PIXELS, PseudoLabelQuality, Quality, at_labels

N = IGNORE


def counted(out, target, n_classes=3) -> dict[str, list[int]]:
    quality = PseudoLabelQuality(n_classes)
    out = {name: torch.tensor(values) for name, values in out.items()}
    quality.update(out, torch.tensor(target))
    return dict(zip(COUNTED_PIXELS, quality.counts.tolist(), strict=True))


def test_labels_are_counted_before_the_gate_after_it_and_where_it_vetoed():
    # In order: right and kept; wrong and vetoed; right and vetoed; wrong and kept; none; of unknown class, vetoed.
    found = counted(
        {
            "ungated_label": [[[0, 1, 1, 2, N, 0]]],
            "pseudo_label": [[[0, N, N, 2, N, N]]],
            "parent_label": [[[0, 2, 0, N, 1, 1]]],
        },
        [[[0, 2, 1, 0, 1, N]]],
    )
    assert found == {
        "pixels": [2, 2, 1],
        "confident": [1, 2, 1],
        "confident_right": [1, 1, 0],
        "used": [1, 0, 1],
        "used_right": [1, 0, 0],
        "vetoed": [0, 2, 0],
        "vetoed_wrong": [0, 1, 0],
        "parent": [2, 1, 1],
        "parent_right": [1, 1, 1],
    }
    shares = Quality(found).shares()
    assert shares["confident"] == 4 / 5
    assert shares["precision before the gate"] == 2 / 4
    assert shares["precision"] == 1 / 2
    assert shares["recall"] == 1 / 5
    assert shares["vetoed rightly"] == 1 / 2
    assert Quality(found).by_class()["precision"] == [1, None, 0]
    assert Quality(found).mean("precision") == 1 / 2
    assert Quality(found).shares([1])["vetoed"] == 1


def test_a_label_that_the_gate_changed_counts_as_vetoed_and_as_used():
    found = counted({"ungated_label": [[[0, 0]]], "pseudo_label": [[[1, 0]]]}, [[[1, 0]]])
    assert (found["vetoed"], found["vetoed_wrong"], found["used_right"]) == ([1, 0, 0], [1, 0, 0], [1, 1, 0])


def test_a_method_without_a_gate_has_the_same_labels_before_and_after_and_no_vetoes():
    found = counted({"pseudo_label": [[[0, 1, N]]]}, [[[0, 2, 2]]])
    assert found["confident"] == found["used"] == [1, 1, 0]
    assert found["confident_right"] == found["used_right"] == [1, 0, 0]
    assert sum(found["vetoed"]) == sum(found["parent"]) == 0
    assert Quality(found).shares()["vetoed rightly"] is None


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("side", [32, 40, 44, 64])
def test_a_target_is_read_where_the_label_is(side, pool):
    """The place of a label, found by interpolating the coordinates as the network's features are."""
    network = build_network("USRN", 2, 2, layers=14, out_dim=8, base_width=4).eval()
    with torch.no_grad():
        labels = network.both_pixel_features(torch.zeros(1, 3, side, side))[0]
    corners = torch.linspace(0, side - 1, labels.shape[2])
    places = torch.nn.functional.avg_pool1d(corners[None], 2)[0] if pool else corners
    target = torch.arange(side).expand(1, side, side)
    found = at_labels(target, torch.Size([len(places)] * 2))
    assert found.shape == (1, len(places), len(places))
    assert (found[0, 0] - places).abs().max() <= 0.5001
    assert torch.equal(at_labels(target.mT, torch.Size([len(places)] * 2)), found.mT)
