"""The optimiser's momentum, taken from a checkpoint of another device."""

import torch

from tests.trainer.runs import CPU
from trainer.loop.assembly import load_momentum


def test_momentum_that_was_saved_in_another_memory_order_moves_the_same_weights():
    saved = torch.randn(4, 3, 3, 3, generator=torch.Generator(CPU).manual_seed(0))
    for order in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(torch.zeros(4, 3, 3, 3).to(memory_format=torch.channels_last))
        optimizer = torch.optim.SGD([weight], lr=1.0, momentum=1.0, fused=True)
        momentum = saved.clone(memory_format=order)
        load_momentum(optimizer, {"state": {0: {"momentum_buffer": momentum}}})
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        assert torch.equal(weight.detach(), -saved)
