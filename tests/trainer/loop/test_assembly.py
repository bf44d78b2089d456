"""The optimiser: learning rates of heads and trunk, and its momentum taken from a checkpoint of another device."""

import pytest
import torch

from tests.trainer.runs import CPU
from trainer.loop.assembly import load_moments, make_network, make_optimizer
from utils.config_file import load_config


def test_momentum_that_was_saved_in_another_memory_order_moves_the_same_weights():
    saved = torch.randn(4, 3, 3, 3, generator=torch.Generator(CPU).manual_seed(0))
    for order in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(torch.zeros(4, 3, 3, 3).to(memory_format=torch.channels_last))
        optimizer = torch.optim.SGD([weight], lr=1.0, momentum=1.0, fused=True)
        momentum = saved.clone(memory_format=order)
        load_moments(optimizer, {"state": {0: {"momentum_buffer": momentum}}})
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        assert torch.equal(weight.detach(), -saved)


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ([], [0.01, 0.001]),
        (["diff_lrs=false"], [0.01, 0.01]),
        (["optimizer.type=AdamW", "optimizer.backbone_lr_factor=0.025"], [0.01, 0.00025]),
    ],
)
def test_the_trunk_learns_at_its_part_of_the_heads_rate(tiny_configs, settings, rates):
    config = load_config(tiny_configs[0], [*settings, "optimizer.args.weight_decay=0.02"])
    network = make_network(config, 3, None)
    optimizer = make_optimizer(config, network)
    assert type(optimizer).__name__ == config.optimizer.type
    assert [group["initial_lr"] for group in optimizer.param_groups] == pytest.approx(rates)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.02}
    backbone = {id(parameter) for parameter in network.encoder.backbone.parameters()}
    assert {id(parameter) for parameter in optimizer.param_groups[1]["params"]} == backbone
