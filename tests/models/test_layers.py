"""The layers that are faster than PyTorch's do what PyTorch's do."""

import pytest
import torch

from models.layers import DilatedConv2d, Dropout

DILATION = 6


@pytest.mark.parametrize(
    ("size", "training"),
    [
        ((4, 4), True),
        ((6, 3), True),
        ((7, 3), True),
        ((8, 12), True),
        ((13, 9), True),
        ((4, 4), False),
        ((8, 8), False),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dilated_convolution_is_that_of_pytorch(size, training, memory_format):
    torch.manual_seed(0)
    ours = DilatedConv2d(3, 5, DILATION).train(training)
    theirs = torch.nn.Conv2d(3, 5, 3, padding=DILATION, dilation=DILATION, bias=False)
    theirs.load_state_dict(ours.state_dict())
    outputs = []
    for module in (ours.to(memory_format=memory_format), theirs):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        x = x.contiguous(memory_format=memory_format).requires_grad_()
        y = module(x)
        (y**2).sum().backward()
        outputs.append((y, x.grad, module.weight.grad))
    torch.testing.assert_close(*outputs)


def test_dilated_convolution_runs_in_half_precision():
    module = DilatedConv2d(3, 5, DILATION)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(torch.randn(2, 3, 8, 8))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert module.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(8, 4, 64, 64, dtype=dtype, requires_grad=True)
    y = Dropout(p)(x)
    y.sum().backward()
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    assert y.dtype == dtype
    assert y[y != 0].float().unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-2)
    assert torch.equal(x.grad, y)


def test_dropout_follows_from_the_seed_and_is_off_in_evaluation():
    module, x = Dropout(0.5), torch.rand(100)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(module(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(module.eval()(x), x)
