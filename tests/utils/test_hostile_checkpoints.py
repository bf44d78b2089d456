"""Checkpoints that hold something else than what was asked for: one message each, and no memory or code."""

import argparse
import pathlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from models.imagenet import FILES, imagenet_weights
from trainer.prediction import load_model
from utils.checkpoint import load_checkpoint
from utils.errors import UsageError

WEIGHTS = {"a.weight": torch.ones(2, 2)}


def nested(values: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor([values, values[:1]])


FOREIGN = {
    "sparse": (torch.Tensor.to_sparse, "is a sparse tensor"),
    "rows": (torch.Tensor.to_sparse_csr, "is a sparse tensor"),
    "quantized": (lambda values: torch.quantize_per_tensor(values, 1.0, 0, torch.quint8), "is a quantized tensor"),
    "meta": (lambda values: values.to("meta"), "is a tensor without values, on the device meta"),
    "nested": (nested, "is a nested tensor"),
    "stride 0": (lambda values: values[:1, :1].expand(10**9, 1), "is a tensor of 1,000,000,000 values"),
}


@pytest.mark.parametrize("place", ["state_dict", "resume"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_tensor_of_another_kind_is_named_in_words(tmp_path, kind, place):
    make, words = FOREIGN[kind]
    contents = {"state_dict": dict(WEIGHTS), "resume": {"optimizer": [WEIGHTS]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, on kinds of tensors in beta and others to be removed
        contents[place] = {"b": make(torch.ones(2, 2))}
        torch.save(contents, tmp_path / "foreign.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the message is all that is said
        with pytest.raises(UsageError, match=rf"foreign\.pth: .*{place}\.b {words}"):
            load_checkpoint(tmp_path / "foreign.pth")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.arange(3), "a NumPy array"),
        (np.int64(3), "a NumPy number"),
        (argparse.Namespace(lr=0.1), "an object of the type argparse.Namespace"),
        (pathlib.PurePosixPath("x"), "an object of the type pathlib.PurePosixPath"),
        (nn.Linear(1, 1), "an object of the type torch.nn.modules.linear.Linear"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_object_of_a_foreign_type_is_named_in_words(tmp_path, value, words, zipped):
    contents = {"state_dict": WEIGHTS, "args": value}
    torch.save(contents, tmp_path / "foreign.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError) as error:
        load_checkpoint(tmp_path / "foreign.pth")
    assert f"it holds {words}; only tensors" in str(error.value)
    assert "\x1b" not in str(error.value)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"state_dict": {1: torch.ones(2)}}, "holds no state_dict"),
        ({"state_dict": {"a": torch.ones(2), "module.a": torch.ones(2)}}, "weights of one name"),
        ({"state_dict": {"a": torch.ones(10**9, 0)}}, "a is empty"),
        ({"classes": 3, "colours": []}, "key classes"),
        ({"classes": ["a", 2], "colours": [[0, 0, 0]] * 2}, "key classes.1"),
        ({"classes": ["a", "b\x1b[2J"], "colours": [[0, 0, 0]] * 2}, "control character U\\+001B"),
        ({"classes": ["a", "b"]}, "classes and colours"),
        ({"classes": ["a", "b"], "colours": [[0, 0, 0]]}, "classes and colours"),
        ({"classes": ["a", "b"], "colours": [[0, 0, 256], [0, 0, 0]]}, "key colours.0.2"),
        ({"classes": ["a", "b"], "colours": [[0, 0], [0, 0, 0]]}, "key colours.0"),
        ({"classes": ["a"] * 300, "colours": [[0, 0, 0]] * 300}, "key classes"),
        ({"epoch": "3"}, "key epoch"),
        ({"monitor_best": [1]}, "key monitor_best"),
        ({"resume": 3}, "key resume"),
    ],
)
def test_entry_of_another_kind_is_named(tmp_path, entries, words):
    torch.save({"state_dict": WEIGHTS} | entries, tmp_path / "wrong.pth")
    with pytest.raises(UsageError, match=rf"wrong\.pth: .*{words}"):
        load_checkpoint(tmp_path / "wrong.pth")


def test_checkpoint_that_holds_itself_is_refused(tmp_path):
    contents = {"state_dict": WEIGHTS}
    contents["resume"] = contents
    torch.save(contents, tmp_path / "loop.pth")
    with pytest.raises(UsageError, match=r"loop\.pth: is no checkpoint that can be read safely"):
        load_checkpoint(tmp_path / "loop.pth")


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("encoder.backbone.conv1.weight", (100_000, 3, 1, 1), "do not fit|no network"),  # of 10^12 weights
        ("encoder.backbone.conv1.weight", (), "is no convolution's"),
        ("classifier.1.weight", (300, 8, 1, 1), "is of 300 classes"),
        ("classifier.1.weight", (4,), "is no convolution's"),
        ("classifier_SubCls.1.weight", (1,), "is no convolution's"),
    ],
)
def test_network_that_a_checkpoint_only_claims_takes_no_memory(tmp_path, name, shape, words):
    from models import build_network

    network = build_network("Baseline", 4, None, layers=14, out_dim=8, base_width=4)
    torch.save({"state_dict": network.state_dict() | {name: torch.ones(shape)}}, tmp_path / "claim.pth")
    with pytest.raises(UsageError, match=rf"claim\.pth: .*({words})"):
        load_model(tmp_path / "claim.pth", device="cpu")


def test_imagenet_weights_of_another_kind_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.ones(2, 2).to_sparse()}, tmp_path / FILES[50])
    with pytest.raises(UsageError, match=rf"{FILES[50]} .*conv1.weight is a sparse tensor"):
        imagenet_weights(50, tmp_path)
