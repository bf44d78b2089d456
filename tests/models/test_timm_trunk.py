"""Trunks of timm: two levels, a later half for each branch, and the weights and the normalisation of timm's models."""

from importlib import util

import pytest
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from dataloaders.photometry import MEAN, STD, normalise
from models import Baseline, build_network
from models.batch_norm import separate_batches
from models.execution import evaluation_copy
from models.pretrained import load_trunk
from models.timm_trunk import make_timm_trunk, timm_weights
from trainer.methods.fixmatch import FixMatchStep
from trainer.methods.unimatch import UniMatchStep
from utils.errors import UsageError

RESNET, EFFICIENTNET, CONVNEXT = "timm/resnet10t", "timm/test_efficientnet", "timm/convnext_atto"
VIT, DINOV3 = "timm/test_vit", "timm/vit_tiny_patch16_dinov3_qkvb"


def trunk(name, *, subclass_copy=False):
    torch.manual_seed(0)
    return make_timm_trunk(name, subclass_copy=subclass_copy)


@pytest.mark.parametrize("name", [RESNET, EFFICIENTNET, CONVNEXT, VIT, DINOV3])
def test_both_branches_learn_at_stride_4_and_every_weight_has_its_part(name):
    network = build_network("USRN", 3, 5, out_dim=8, trunk=name)
    features = network.both_pixel_features(torch.rand(2, 3, 72, 104))
    assert [tuple(values.shape) for values in features] == [(2, 8, 18, 26)] * 2
    sum(values.square().mean() for values in features).backward()
    assert not [name for name, value in network.encoder.named_parameters() if value.grad is None]
    assert network.eval()(torch.rand(1, 3, 50, 61)).shape == (1, 3, 50, 61)


@pytest.mark.parametrize("method", [FixMatchStep, UniMatchStep])
@pytest.mark.parametrize("name", [EFFICIENTNET, VIT])
def test_methods_of_one_branch_learn_on_it(name, method):
    step = method(build_network("Baseline", 3, out_dim=8, trunk=name), pos_thresh_value=0.0)
    labelled, weak, strong = torch.rand(2, 3, 48, 64), torch.rand(2, 3, 48, 64), torch.rand(4, 3, 48, 64)

    def label(images):
        return tuple(values.repeat_interleave(2, 0) for values in step.label(images))

    out = step(labelled, torch.randint(0, 3, (2, 48, 64)), u_weak=weak, u_strong=strong, label=label)
    assert out["Lu_reg"] > 0
    out["total"].backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in step.network.parameters())


@pytest.mark.parametrize("name", [RESNET, EFFICIENTNET, VIT, DINOV3])
@torch.no_grad()
def test_the_later_half_exists_twice_and_the_earlier_one_is_shared(name):
    backbone = trunk(name, subclass_copy=True).eval()
    images = torch.rand(1, 3, 64, 64)
    low_level, top, subclass_top = backbone.both(images)
    assert all(map(torch.equal, backbone(images), (low_level, top)))
    torch.testing.assert_close(top, subclass_top, rtol=0, atol=0)
    own = {name for name, _ in backbone.net_aux.named_parameters()}
    assert 0 < len(own) < len({name for name, _ in backbone.net.named_parameters()})
    for value in backbone.net_aux.parameters():
        value.add_(0.1)
    changed = backbone.both(images)
    assert torch.equal(changed[0], low_level)
    assert torch.equal(changed[1], top)
    assert not torch.allclose(changed[2], top)
    backbone.copy_to_subclass_layers()
    assert torch.equal(backbone.both(images)[2], top)


@torch.no_grad()
def test_timms_resnet_gives_the_undilated_features_of_ours():
    torch.manual_seed(0)
    ours = Baseline(3, out_dim=8)
    timms = Baseline(3, out_dim=8, trunk="timm/resnet50")
    for norm in (module for module in ours.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.uniform_(-0.1, 0.1)
    load_trunk(timms, ours.encoder.backbone.state_dict(), "our ResNet-50")
    theirs, own = timms.eval().encoder.backbone, ours.eval().encoder.backbone
    images = normalise(torch.rand(2, 3, 72, 96))
    low_level, top = theirs(images)
    expected = own.low_level(images)
    torch.testing.assert_close(low_level, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(top, own.layer3(own.layer2(expected)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [EFFICIENTNET, CONVNEXT, "timm/test_convnext", "timm/pvt_v2_b0"])
@torch.no_grad()
def test_hierarchical_features_are_those_of_timm(name):
    torch.manual_seed(0)
    expected = timm.create_model(name.removeprefix("timm/"), features_only=True).eval()
    backbone = trunk(name).eval()
    images = torch.rand(1, 3, 64, 96)
    at_stride = dict(zip(expected.feature_info.reduction(), expected(backbone._renormalised(images)), strict=True))
    assert all(map(torch.equal, backbone(images), (at_stride[4], at_stride[16])))


@pytest.mark.parametrize(("name", "blocks"), [(VIT, 6), (DINOV3, 12)])
@torch.no_grad()
def test_vit_features_are_those_of_timms_blocks_on_padded_images(name, blocks):
    torch.manual_seed(0)
    vit = timm.create_model(name.removeprefix("timm/"), num_classes=0, dynamic_img_size=True).eval()
    backbone = trunk(name).eval()
    images = torch.rand(1, 3, 60, 90)
    padded = torch.nn.functional.pad(backbone._renormalised(images), (0, 6, 0, 4))
    last, (middle,) = vit.forward_intermediates(padded, indices=[blocks // 2 - 1])
    low_level, top = backbone(images)
    torch.testing.assert_close(top, last[:, vit.num_prefix_tokens :].transpose(1, 2).unflatten(2, (4, 6)))
    assert low_level.shape[-2:] == (15, 23)
    for corner in ((0, 0), (-1, -1)):
        torch.testing.assert_close(low_level[..., corner[0], corner[1]], middle[..., corner[0], corner[1]])


def test_images_get_the_mean_and_deviation_of_timms_description():
    assert (MEAN, STD) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    images = torch.rand(2, 3, 8, 8)
    halves = trunk("timm/vit_tiny_patch16_224")  # 0.5 and 0.5
    torch.testing.assert_close(halves._renormalised(normalise(images)), (images - 0.5) / 0.5)
    assert not trunk(CONVNEXT).is_renormalised


@pytest.mark.parametrize("name", [RESNET, EFFICIENTNET])
@torch.no_grad()
def test_joined_batches_are_normalised_apart(name):
    joined, apart = trunk(name).train(), trunk(name).train()
    images = torch.rand(5, 3, 64, 64)
    with separate_batches(2, 3):
        tops = joined(images)[1].split([2, 3])
    for top, part in zip(tops, images.split([2, 3]), strict=True):
        torch.testing.assert_close(top, apart(part)[1], rtol=1e-4, atol=1e-5)
    assert all(torch.allclose(one, other) for one, other in zip(joined.buffers(), apart.buffers(), strict=True))


@pytest.mark.parametrize("name", [EFFICIENTNET, VIT])
@torch.no_grad()
def test_copy_that_only_evaluates_gives_the_same_logits(name):
    torch.manual_seed(0)
    network = Baseline(3, out_dim=8, trunk=name).double()
    images = torch.rand(2, 3, 64, 64).double()
    for _ in range(3):
        network(images)
    network.eval()
    torch.testing.assert_close(evaluation_copy(network)(images), network(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [EFFICIENTNET, "timm/test_convnext", VIT])
def test_timms_own_files_give_their_weights_to_both_branches(name):
    torch.manual_seed(1)
    whole = timm.create_model(name.removeprefix("timm/")).state_dict()
    network = build_network("USRN", 3, 5, out_dim=8, trunk=name)
    load_trunk(network, {f"model.{key}": value for key, value in whole.items()}, "model.safetensors")
    backbone = network.encoder.backbone
    for part in (backbone.net, backbone.net_aux):
        assert all(torch.equal(value, whole[key]) for key, value in part.state_dict().items())


def test_a_file_of_a_deeper_model_is_refused_with_names():
    deeper = timm.create_model("test_vit").state_dict()
    deeper["blocks.6.norm1.weight"] = torch.ones(64)
    with pytest.raises(UsageError, match=r"not in this network: blocks\.6\.norm1\.weight"):
        load_trunk(Baseline(3, out_dim=8, trunk=VIT), deeper, "model.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet51", "no such model; near it: resnet51q"),
        ("timm/test_maxvit", "does not take images of any size"),
        ("timm/pit_ti_224", "neither a plain ViT nor stages one after the other"),
    ],
)
def test_models_that_cannot_be_a_trunk_are_refused(name, message):
    with pytest.raises(UsageError, match=f"model.trunk {name}.*{message}"):
        make_timm_trunk(name, subclass_copy=False)


def test_without_timm_a_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("models.timm_trunk.find_spec", lambda name: None if name == "timm" else util.find_spec(name))
    with pytest.raises(UsageError, match="needs the package timm: pip install timm"):
        make_timm_trunk(VIT, subclass_copy=False)


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    def no_connection(name, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_connection)
    with pytest.raises(UsageError, match=r'no route to host.*"pretrained" to a file of its weights, or to false'):
        timm_weights(VIT)
