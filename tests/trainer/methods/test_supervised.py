import pytest
import torch
import torch.nn.functional as F

from dataloaders.reading import IGNORE
from trainer.methods.supervised import SupervisedLoss, hard_pixels


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 6, 7, generator=generator)
    target = torch.randint(-1, 4, (2, 6, 7), generator=generator)
    return logits, target


def test_weighted_loss_is_pytorchs_weighted_mean(batch):
    logits, target = batch
    weight = torch.tensor([0.5, 2.0, 0.0, 1.0])
    expected = F.cross_entropy(logits, target, weight, ignore_index=IGNORE)
    assert SupervisedLoss(weight)(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("loss", [SupervisedLoss(torch.ones(4)), SupervisedLoss(None, (0.7, 5))])
def test_batch_without_a_labelled_pixel_has_no_loss_and_a_gradient_of_nothing(batch, loss):
    logits = batch[0].requires_grad_()
    total = loss(logits, torch.full((2, 6, 7), IGNORE))
    total.backward()
    assert total == 0
    assert not logits.grad.any()


def test_hard_pixels_are_those_below_the_threshold_or_the_fewest_kept(batch):
    logits, target = batch
    right = logits.softmax(1).gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1)
    counted = target != IGNORE
    assert torch.equal(hard_pixels(logits, target, 0.3, 0), (right <= 0.3) & counted)
    few = hard_pixels(logits, target, 0.0, 10)
    assert few.sum() == 10
    assert right[few].max() < right[counted & ~few].min()
    assert torch.equal(hard_pixels(logits, target, 0.0, int(counted.sum())), counted)
    assert torch.equal(hard_pixels(logits, target, 0.0, 10**9), counted)


def test_loss_reads_nothing_back_from_the_device():
    meta = torch.device("meta")
    loss = SupervisedLoss(torch.ones(4), (0.7, 5)).to(meta)
    loss(torch.zeros(2, 4, 6, 7, device=meta), torch.zeros(2, 6, 7, dtype=torch.int16, device=meta))
