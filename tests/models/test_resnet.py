"""The trunk: strides, dilations, widths, initial values, subclass copies."""

import pytest
import torch
from torch import nn

from models.resnet import BLOCKS, SUBCLASS_LAYERS, ResNet


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 90), (33, 17)])
def test_low_level_has_stride_4_and_top_stride_16_rounded_up(height: int, width: int):
    trunk = ResNet(14, base_width=8).eval()
    with torch.no_grad():
        low_level, top = trunk(torch.rand(2, 3, height, width))
    assert low_level.shape == (2, 32, -(-height // 4), -(-width // 4))
    assert top.shape == (2, 256, -(-height // 16), -(-width // 16))


@pytest.mark.parametrize("layers", sorted(BLOCKS))
def test_layers_have_the_blocks_of_their_depth(layers: int):
    with torch.device("meta"):
        trunk = ResNet(layers)
    stages = (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4)
    assert tuple(len(stage) for stage in stages) == BLOCKS[layers]
    # The stem's convolution, three in a bottleneck, and the classifier that ResNets count though it is not here.
    assert 3 * sum(BLOCKS[layers]) + 2 == layers


@pytest.mark.parametrize(("layers", "dilations"), [(14, [2]), (26, [2, 4]), (50, [2, 4, 8]), (101, [2, 4, 8])])
def test_layer4_is_dilated_in_place_of_a_stride(layers: int, dilations: list[int]):
    with torch.device("meta"):
        trunk = ResNet(layers, subclass_copy=True)
    for stage in (trunk.layer4, trunk.layer4_aux):
        assert [block.conv2.dilation for block in stage] == [(d, d) for d in dilations]
        assert {block.conv2.stride for block in stage} == {(1, 1)}
    assert {block.conv2.dilation for block in (*trunk.layer2, *trunk.layer3)} == {(1, 1)}


def test_every_width_grows_with_the_base_width():
    with torch.device("meta"):
        narrow, published = ResNet(50, base_width=16).state_dict(), ResNet(50).state_dict()
    for name, value in published.items():
        quarter = [n if n in (1, 3, 7) else n // 4 for n in value.shape]
        assert list(narrow[name].shape) == quarter, name


def test_convolutions_start_with_variance_2_over_kernel_area_and_output_channels():
    torch.manual_seed(0)
    for name, module in ResNet(26).named_modules():
        if isinstance(module, nn.Conv2d):
            kernel, channels = module.kernel_size[0], module.out_channels
            variance = module.weight.var().item()
            assert variance == pytest.approx(2 / (kernel**2 * channels), rel=0.1), name


def test_subclass_layers_start_equal_and_are_independent():
    trunk = ResNet(14, base_width=8, subclass_copy=True).eval()
    low_level = trunk.low_level(torch.rand(1, 3, 32, 32))
    top = trunk.top(low_level)
    torch.testing.assert_close(trunk.subclass_top(low_level), top, rtol=0, atol=0)
    with torch.no_grad():
        for name in SUBCLASS_LAYERS:
            for parameter in getattr(trunk, f"{name}_aux").parameters():
                parameter.add_(1)
    torch.testing.assert_close(trunk.top(low_level), top, rtol=0, atol=0)
    assert not torch.allclose(trunk.subclass_top(low_level), top)


def test_trunk_without_subclass_copy_has_none():
    assert not any("_aux" in name for name in ResNet(14, base_width=8).state_dict())


@pytest.mark.parametrize(("layers", "base_width", "bad"), [(34, 64, "34"), (50, 0, "0")])
def test_impossible_depth_or_width_is_refused_with_its_value(layers: int, base_width: int, bad: str):
    with pytest.raises(ValueError, match=rf"not {bad}$"):
        ResNet(layers, base_width=base_width)
