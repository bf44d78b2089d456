"""Passes that are recorded, with a stand-in for CUDA's graphs; what they do on a GPU is in tests/test_recorded.py."""

import gc
import warnings
import weakref
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dataloaders import open_data
from tests.trainer.runs import CPU
from trainer.loop import graph
from trainer.loop.graph import WARM_UP, RecordedPass
from trainer.loop.trainer import Trainer
from utils.config_file import load_config


class Twice(nn.Module):
    """Gradient x of its one weight, and 2 x; counts how often it runs."""

    def __init__(self):
        super().__init__()
        self.weight, self.runs, self.waits = nn.Parameter(torch.ones(())), 0, False

    def forward(self, batch):
        self.runs += 1
        if self.waits:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        self.weight.grad = batch["x"].sum()
        return {"twice": 2 * batch["x"]}


class Cuda:
    """A stand-in: what is replayed reads and writes the places that were seen in recording."""

    def __init__(self):
        self.passes, self.free, self.fails, self.mode = None, 100, False, 0

    def replay(self):
        batch, out, gradient = self.passes._batch["x"], self.passes._out["twice"], self.passes._gradients[0]
        out.copy_(2 * batch)
        gradient.copy_(batch.sum())

    @contextmanager
    def recording(self, into, capture_error_mode):
        try:
            yield
            if self.fails:
                raise RuntimeError("operation not permitted when stream is capturing\nand more")
        finally:
            if self.fails:
                raise RuntimeError("operation failed due to a previous error during capture")

    def set_mode(self, mode):
        self.mode = mode


@pytest.fixture
def step():
    return Twice()


@pytest.fixture
def cuda(step, monkeypatch):
    cuda = Cuda()
    generator = SimpleNamespace(
        graphsafe_get_state=lambda: SimpleNamespace(clone_state=lambda: None), graphsafe_set_state=lambda state: None
    )
    replaced = {
        "CUDAGraph": lambda: cuda,
        "graph": cuda.recording,
        "default_generators": [generator],
        "current_device": lambda: 0,
        "current_stream": lambda: None,
        "stream": lambda stream: nullcontext(),
        "mem_get_info": lambda: (cuda.free, 100),
        "get_sync_debug_mode": lambda: cuda.mode,
        "set_sync_debug_mode": cuda.set_mode,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    cuda.passes = RecordedPass(step.parameters(), can_record=True)
    return cuda


@pytest.fixture
def logged(monkeypatch):
    found: list[str] = []
    monkeypatch.setattr(graph.log, "warning", found.append)
    return found


def run(passes, step, size, count=1):
    """So many passes, each checked; how often the step itself ran."""
    before = step.runs
    for number in range(count):
        x = torch.full((size,), float(number + 1))
        step.weight.grad = None
        assert passes(step, {"x": x})["twice"].equal(2 * x)
        assert step.weight.grad == x.sum()
    return step.runs - before


def test_passes_of_a_shape_are_replayed_once_they_are_warm(cuda, step):
    assert run(cuda.passes, step, 2, 10) == WARM_UP + 1
    assert run(cuda.passes, step, 3, 10) == WARM_UP + 1
    assert cuda.mode == 0


def test_recording_that_is_given_up_is_made_anew_after_a_plain_pass(cuda, step):
    run(cuda.passes, step, 2, 10)
    cuda.passes.give_up()
    assert step.weight.grad is None
    assert run(cuda.passes, step, 2, 10) == 2


@pytest.mark.filterwarnings("ignore:called a synchronizing")
def test_pass_that_waits_is_not_recorded_and_the_warning_names_the_line(cuda, step, logged):
    step.waits = True
    assert run(cuda.passes, step, 2, 10) == run(cuda.passes, step, 3, 10) == 10
    assert len(logged) == 1
    assert f"{__file__}:" in logged[0]


def test_recording_that_fails_says_why_once_and_all_goes_on_without(cuda, step, logged):
    cuda.fails = True
    assert run(cuda.passes, step, 2, 10) == 11
    assert run(cuda.passes, step, 3, 10) == 10
    assert len(logged) == 1
    assert "(operation not permitted when stream is capturing)" in logged[0]


def test_recording_that_leaves_too_little_memory_is_not_kept(cuda, step, logged):
    cuda.free = 9
    assert run(cuda.passes, step, 2, 10) == 11
    assert len(logged) == 1
    assert "memory" in logged[0]


def test_passes_that_cannot_be_recorded_run(step):
    assert run(RecordedPass(step.parameters(), can_record=False), step, 2, 10) == 10


def test_trainer_that_is_let_go_of_frees_its_memory_at_once(tiny_configs):
    config = load_config(tiny_configs[0])
    data = open_data(config)
    Trainer(config, data, CPU)  # a frame of an import keeps a process's first one
    gc.collect()
    gc.disable()
    try:
        trainer = weakref.ref(Trainer(config, data, CPU))
        assert trainer() is None
    finally:
        gc.enable()
