"""The two networks: shapes, branches, parameter groups, initial values."""

import pytest
import torch
from torch import Tensor, nn

from models import USRN, Baseline, build_network
from models.deeplab import ASPP, Decoder

SMALL = {"layers": 14, "out_dim": 16, "base_width": 8}


def small(name: str) -> Baseline | USRN:
    return build_network(name, 5, 9, **SMALL)


def called_modules(network: nn.Module) -> set[str]:
    """Names of the modules that run from now on; the set fills as they do."""
    called: set[str] = set()
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    return called


@pytest.mark.parametrize("name", ["Baseline", "USRN"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 90), (33, 17)])
def test_logits_have_the_images_size_and_features_a_quarter_rounded_up(name: str, height: int, width: int):
    network = small(name).eval()
    images = torch.rand(2, 3, height, width)
    with torch.no_grad():
        assert network(images).shape == (2, 5, height, width)
        assert network.pixel_features(images).shape == (2, 16, -(-height // 4), -(-width // 4))


def test_logits_are_the_classified_features_upsampled_with_corners_aligned():
    network = small("Baseline").eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        coarse = network.classifier(network.pixel_features(images))
        logits = network(images)
    # With aligned corners, 64 pixels span 16 positions in steps of 15/63: pixel 1 lies between positions 0 and 1.
    between = torch.lerp(coarse[..., 0, 0], coarse[..., 0, 1], 15 / 63)
    torch.testing.assert_close(logits[..., 0, 1], between)
    torch.testing.assert_close(logits[..., -1, -1], coarse[..., -1, -1])


def test_both_pixel_features_hold_the_class_branch_and_another_of_the_same_shape():
    network = small("USRN").eval()
    images = torch.rand(2, 3, 61, 90)
    with torch.no_grad():
        class_features, subclass_features = network.both_pixel_features(images)
        torch.testing.assert_close(class_features, network.pixel_features(images), rtol=0, atol=0)
        assert subclass_features.shape == class_features.shape
        assert not torch.allclose(subclass_features, class_features)
        assert network.classifier_SubCls(subclass_features).shape == (2, 9, 16, 23)


def test_the_subclass_feature_comes_from_subclass_modules_alone():
    network = small("USRN").eval()
    images = torch.rand(1, 3, 32, 32)
    network.both_pixel_features(images)[1].sum().backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None}
    shared = ("encoder.backbone.conv1", "encoder.backbone.bn1", "encoder.backbone.layer1")
    own = {
        name
        for name, _ in network.named_parameters()
        if "_aux" in name or name.startswith(("encoder.aspp_SubCls", "encoder.decoder_SubCls", *shared))
    }
    assert with_gradient == own


def test_stem_and_layer1_run_once_for_both_branches():
    network = small("USRN").eval()
    runs = []
    network.encoder.backbone.layer1.register_forward_hook(lambda *_: runs.append("layer1"))
    network.encoder.backbone.conv1.register_forward_hook(lambda *_: runs.append("conv1"))
    network.both_pixel_features(torch.rand(1, 3, 32, 32))
    assert runs == ["conv1", "layer1"]


@pytest.mark.parametrize("method", ["forward", "pixel_features"])
def test_evaluation_runs_only_the_class_branch(method: str):
    network = small("USRN").eval()
    called = called_modules(network)
    getattr(network, method)(torch.rand(1, 3, 32, 32))
    assert {"encoder.backbone.layer4", "encoder.aspp", "encoder.decoder"} <= called
    assert not [name for name in called if "_aux" in name or "SubCls" in name]


@pytest.mark.parametrize("name", ["Baseline", "USRN"])
def test_backbone_and_head_share_no_parameter_and_leave_none_out(name: str):
    network = small(name)
    backbone = [id(p) for p in network.backbone_parameters()]
    heads = [id(p) for p in network.head_parameters()]
    of_trunk = {id(p) for n, p in network.named_parameters() if n.startswith("encoder.backbone.")}
    assert set(backbone) == of_trunk
    assert sorted(backbone + heads) == sorted(id(p) for p in network.parameters())


def test_usrn_evaluates_as_a_baseline_with_the_same_class_branch():
    usrn, baseline = small("USRN").eval(), small("Baseline").eval()
    state = {k: v for k, v in usrn.state_dict().items() if "_aux" not in k and "_SubCls" not in k}
    baseline.load_state_dict(state)
    images = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(usrn(images), baseline(images))


def test_aspp_and_decoder_of_the_branches_start_apart_from_each_other():
    encoder = small("USRN").encoder
    assert not torch.equal(encoder.aspp.conv1.weight, encoder.aspp_SubCls.conv1.weight)
    assert not torch.equal(encoder.decoder.last_conv[0].weight, encoder.decoder_SubCls.last_conv[0].weight)


def test_head_convolutions_start_kaiming_normal_with_fan_in():
    torch.manual_seed(0)
    network = build_network("USRN", 64, 128, layers=14, out_dim=64, base_width=16)
    heads: list[nn.Module] = [network.encoder.aspp, network.encoder.aspp_SubCls]
    heads += [network.encoder.decoder, network.encoder.decoder_SubCls]
    heads += [network.classifier, network.classifier_SubCls]
    for head in heads:
        for name, module in head.named_modules():
            if isinstance(module, nn.Conv2d):
                weight: Tensor = module.weight
                assert weight.var().item() == pytest.approx(2 / weight[0].numel(), rel=0.15), name


def test_dropout_has_the_published_probabilities():
    assert [m.p for m in ASPP(16, 8).modules() if isinstance(m, nn.Dropout)] == [0.5]
    assert [m.p for m in Decoder(16, 8).modules() if isinstance(m, nn.Dropout)] == [0.5]
    network = small("USRN")
    assert [network.classifier[0].p, network.classifier_SubCls[0].p] == [0.1, 0.1]


def test_aspp_branches_have_the_dilations_of_output_stride_16():
    aspp = ASPP(16, 8)
    convolutions = [branch.atrous_conv for branch in (aspp.aspp1, aspp.aspp2, aspp.aspp3, aspp.aspp4)]
    assert [(c.kernel_size[0], c.dilation[0]) for c in convolutions] == [(1, 1), (3, 6), (3, 12), (3, 18)]


def test_a_small_network_learns_one_image():
    torch.manual_seed(0)
    network = small("USRN").train()
    images, target = torch.randn(2, 3, 32, 32), torch.randint(5, (2, 8, 8))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(15):
        features, subclass_features = network.both_pixel_features(images)
        loss = nn.functional.cross_entropy(network.classifier(features), target)
        loss = loss + nn.functional.cross_entropy(network.classifier_SubCls(subclass_features), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_build_network_makes_the_network_of_that_name():
    assert type(small("Baseline")) is Baseline
    assert type(small("USRN")) is USRN
    with pytest.raises(ValueError, match="'usrn'"):
        build_network("usrn", 5, 9, **SMALL)
    with pytest.raises(ValueError, match="n_subclasses"):
        build_network("USRN", 5, **SMALL)
