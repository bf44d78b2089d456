import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from utils.checkpoint import load_checkpoint, load_weights, save_checkpoint
from utils.errors import NotFiniteError, UsageError
from utils.files import write_atomically

CLASSES = {"classes": ("road", "sky"), "colours": np.array([[1, 2, 3], [4, 5, 6]], np.uint8)}


def network(seed: int = 0, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, width, 1), nn.BatchNorm2d(width))


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def originals_file(path, *, numpy_1: bool, zipped: bool):
    """A file as the original writes it: names with ``module.``, its best score a NumPy float64."""
    state = {f"module.{name}": value for name, value in network().state_dict().items()}
    contents = {"arch": "DistributedDataParallel", "epoch": 7, "state_dict": state, "monitor_best": np.float64(0.5)}
    file = io.BytesIO()
    torch.save(contents, file, _use_new_zipfile_serialization=zipped)
    here, there = b"numpy._core.multiarray", b"numpy.core.multiarray"
    if not numpy_1:
        here, there = there, here
    if not zipped:  # one pickle, in which a name ends with its line
        path.write_bytes(file.getvalue().replace(here, there))
        return
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(here, there))


class Malicious:
    """Runs code where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_saved_checkpoint_comes_back_with_everything(tmp_path):
    resume = {"iteration": 12, "finished": False, "optimizer": {"momentum": torch.ones(2)}, "config": "{}"}
    save_checkpoint(tmp_path / "runs" / "last.pth", network(), epoch=3, best=0.25678, **CLASSES, resume=resume)
    contents = load_checkpoint(tmp_path / "runs" / "last.pth")
    assert (contents["epoch"], contents["monitor_best"]) == (3, 25.68)  # percent, as the original has it
    assert (contents["classes"], contents["colours"]) == (["road", "sky"], [[1, 2, 3], [4, 5, 6]])
    assert (contents["resume"]["iteration"], contents["resume"]["finished"]) == (12, False)
    assert torch.equal(contents["resume"]["optimizer"]["momentum"], torch.ones(2))
    other = network(seed=1)
    load_weights(other, contents["state_dict"], tmp_path / "last.pth")
    assert same(other.state_dict(), network().state_dict())


def test_file_for_others_has_the_originals_entries_and_names(tmp_path):
    save_checkpoint(tmp_path / "best.pth", network(), epoch=3, best=0.25, **CLASSES)
    contents = torch.load(tmp_path / "best.pth", weights_only=True)
    assert contents.keys() - {"classes", "colours"} == {"arch", "epoch", "state_dict", "monitor_best"}
    assert contents["arch"] == "DistributedDataParallel"
    assert list(contents["state_dict"]) == [f"module.{name}" for name in network().state_dict()]


@pytest.mark.parametrize("numpy_1", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_file_of_the_original_is_read(tmp_path, numpy_1, zipped):
    originals_file(tmp_path / "best.pth", numpy_1=numpy_1, zipped=zipped)
    contents = load_checkpoint(tmp_path / "best.pth")
    assert same(contents["state_dict"], network().state_dict())
    assert (contents["epoch"], float(contents["monitor_best"])) == (7, 0.5)
    assert "resume" not in contents


def test_names_without_module_are_read_too(tmp_path):
    torch.save({"state_dict": network().state_dict()}, tmp_path / "bare.pth")
    assert same(load_checkpoint(tmp_path / "bare.pth")["state_dict"], network().state_dict())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda contents, path: path.write_bytes(pickle.dumps(contents))])
def test_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, write):
    marker = tmp_path / "it-ran"
    contents = {"state_dict": network().state_dict(), "monitor_best": Malicious(marker)}
    write(contents, tmp_path / "bad.pth")
    with pytest.raises(UsageError, match=r"bad\.pth: is no checkpoint that can be read safely"):
        load_checkpoint(tmp_path / "bad.pth")
    assert not marker.exists()
    with open(tmp_path / "bad.pth", "rb") as file:  # the same file does run code where loading is not safe
        torch.load(file, weights_only=False) if write is torch.save else pickle.load(file)
    assert marker.is_dir()


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file_is_refused_wherever_it_ends(tmp_path, zipped):
    path = tmp_path / "cut.pth"
    originals_file(path, numpy_1=False, zipped=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 150)):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"cut\.pth: "):
            load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_file_is_refused_or_read_but_never_a_traceback(tmp_path, zipped):
    path = tmp_path / "damaged.pth"
    originals_file(path, numpy_1=False, zipped=zipped)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except UsageError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("contents", [[1, 2], {"weights": {}}, {"state_dict": [1]}, {"state_dict": {"a": "text"}}])
def test_file_without_weights_is_no_checkpoint(tmp_path, contents):
    torch.save(contents, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"other\.pth: holds no state_dict"):
        load_checkpoint(tmp_path / "other.pth")


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.pth: there is no such checkpoint"):
        load_checkpoint(tmp_path / "gone.pth")


def test_weights_that_do_not_fit_are_refused_by_name_and_shape_and_nothing_is_loaded(tmp_path):
    state = network(seed=1, width=5).state_dict()
    state["extra.weight"] = torch.zeros(1)
    del state["1.running_mean"]
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(UsageError) as error:
        load_weights(target, state, tmp_path / "five.pth")
    message = str(error.value)
    assert "five.pth" in message
    assert "missing: 1.running_mean" in message
    assert "unexpected: extra.weight" in message
    assert "0.weight: shape (5, 2, 1, 1) in the file, (3, 2, 1, 1) in the network" in message
    assert same(target.state_dict(), before)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.tensor([1.0, torch.nan, 0.0]), "holds values that are not finite"),
        (torch.tensor([1.0, -torch.inf, 0.0]), "holds values that are not finite"),
        (torch.tensor([1.0, 1e300, 0.0], dtype=torch.float64), "holds values that are not finite"),
        (torch.ones(3, dtype=torch.complex64), "is of type complex64 in place of float32"),
        (torch.ones(3, dtype=torch.int8), "is of type int8 in place of float32"),
        (torch.ones(3, dtype=torch.bool), "is of type bool in place of float32"),
    ],
)
def test_weights_that_are_not_finite_or_no_numbers_of_their_kind_are_refused(tmp_path, value, reason):
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(UsageError, match=rf"other\.pth: 1\.running_var {reason}"):
        load_weights(target, {**before, "1.running_var": value}, tmp_path / "other.pth")
    assert same(target.state_dict(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_floating_point_type_are_taken(tmp_path, dtype):
    target = network()
    load_weights(target, network(seed=1).to(dtype).state_dict(), tmp_path / "half.pth")
    assert target[0].weight.dtype == torch.float32


def test_weights_that_are_not_finite_are_not_saved_over_good_ones(tmp_path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, network(), epoch=1, best=0.5, **CLASSES)
    bad = network(seed=1)
    bad[0].bias.data[1] = torch.inf
    with pytest.raises(NotFiniteError, match=r"checkpoint\.pth: is not written, since 0\.bias is not finite"):
        save_checkpoint(path, bad, epoch=2, best=0.5, **CLASSES)
    assert same(load_checkpoint(path)["state_dict"], network().state_dict())


def test_long_list_of_differences_is_cut_and_counted(tmp_path):
    with pytest.raises(UsageError, match="… and 2 more") as error:
        load_weights(nn.ModuleList(nn.Linear(1, 1) for _ in range(7)), {}, tmp_path / "empty.pth")
    assert str(error.value).count("missing: ") == 12


def test_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(UsageError, match=r"file: cannot be written \(disk full\)"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_replaces_the_old_file_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        assert path.read_bytes() == b"old"

    write_atomically(path, write)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
