"""Passes that are recorded, with a stand-in for CUDA's graphs; what they do on a GPU is in tests/test_device.py."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trainer.loop import graph
from trainer.loop.graph import WARM_UP, RecordedPass


class Twice(nn.Module):
    """Gradient x of its one weight, and 2 x; counts how often it runs."""

    def __init__(self):
        super().__init__()
        self.weight, self.runs, self.fails = nn.Parameter(torch.ones(())), 0, False

    def forward(self, batch):
        self.runs += 1
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        self.weight.grad = batch["x"].sum()
        return {"twice": 2 * batch["x"]}


@pytest.fixture
def step():
    return Twice()


@pytest.fixture
def passes(step, monkeypatch):
    """Of ``step``, "recorded": what is replayed reads and writes the places that were seen in recording."""
    free, recorded = SimpleNamespace(bytes=100), None

    class Graph:
        def replay(self):
            x, out, gradient = recorded()
            out.copy_(2 * x)
            gradient.copy_(x.sum())

    @contextmanager
    def recording(into, capture_error_mode):
        nonlocal recorded
        yield
        recorded = lambda: (made._batch["x"], made._out["twice"], made._gradients[0])  # noqa: E731

    generator = SimpleNamespace(
        graphsafe_get_state=lambda: SimpleNamespace(clone_state=lambda: None), graphsafe_set_state=lambda state: None
    )
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "default_generators", [generator])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free.bytes, 100))
    made = RecordedPass(step, step.parameters(), possible=True)
    made.free = free
    return made


def run(passes, step, size, count=1):
    """So many passes, each checked; how often the step itself ran."""
    before = step.runs
    for number in range(count):
        x = torch.full((size,), float(number + 1))
        step.weight.grad = None
        assert passes({"x": x})["twice"].equal(2 * x)
        assert step.weight.grad == x.sum()
    return step.runs - before


def test_passes_of_a_shape_are_replayed_once_they_are_warm(passes, step):
    assert run(passes, step, 2, 10) == WARM_UP + 1
    assert run(passes, step, 3, 10) == WARM_UP + 1


def test_recording_is_given_up_where_memory_is_scarce_and_made_anew(passes, step):
    run(passes, step, 2, 10)
    passes.make_room()
    assert run(passes, step, 2, 3) == 0
    passes.free.bytes = 20
    passes.make_room()
    assert step.weight.grad is None
    assert run(passes, step, 2, 3) == 1


def test_recording_that_fails_says_so_once_and_all_goes_on_without(passes, step, monkeypatch):
    warnings: list[str] = []
    monkeypatch.setattr(graph.log, "warning", warnings.append)
    run(passes, step, 2, WARM_UP)
    step.fails = True
    with pytest.raises(RuntimeError):  # of the pass itself, as it is without recording
        passes({"x": torch.ones(2)})
    step.fails = False
    assert run(passes, step, 2, 5) == run(passes, step, 3, 5) == 5
    assert len(warnings) == 1
    assert "operation not permitted when stream is capturing" in warnings[0]
    assert "more" not in warnings[0]


def test_passes_that_cannot_be_recorded_run(step):
    assert run(RecordedPass(step, step.parameters(), possible=False), step, 2, 10) == 10
