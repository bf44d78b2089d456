"""Where compiling fails in one process, all go on without: none runs what another does not."""

import pytest
import torch
from torch._dynamo.exc import InternalTorchDynamoError

from models import execution
from tests.trainer.runs import run_apart
from utils.distributed import all_sum, rank

GRAPHS = 2


class Exchanging(torch.nn.Module):
    """Two graphs with a sum over the processes between them."""

    def forward(self, x):
        x = x + 1
        torch._dynamo.graph_break()
        return all_sum(x.clone()) * 2


def three_calls(fails_at, folder, device):
    """What three calls return and which graphs ran. Rank 1 cannot compile graph ``fails_at``; 0: it has none at all."""
    compiled, ran = [], []

    def compile_graph(graph, inputs):
        compiled.append(graph)
        number = len(compiled)
        if rank() == 1 and number == fails_at:
            raise OSError("no space left on device")
        return lambda *args: ran.append(number) or graph.forward(*args)

    def compile_or_fail(function, **options):
        def fail(x):
            raise InternalTorchDynamoError("no space left on device", None)

        return fail if rank() == 1 and fails_at == 0 else compile_with(function, **options)

    compile_with = torch.compile
    torch.compile, execution.compile_graph = compile_or_fail, compile_graph
    module, warnings = Exchanging(), []
    execution.log.warning = warnings.append
    execution.compile_forward(module)
    outputs = [module(torch.full((3,), float(rank()))) for _ in range(3)]
    torch.save({"outputs": outputs, "ran": ran, "warnings": warnings}, folder / f"{rank()}.pt")


@pytest.mark.parametrize("fails_at", [0, 1, 2, None])
def test_all_processes_run_compiled_or_none(tmp_path, fails_at):
    assert run_apart(three_calls, fails_at, tmp_path, processes=2) == []
    found = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (0, 1)]
    for one in found:
        assert all(output.equal(torch.full((3,), 6.0)) for output in one["outputs"])
        assert one["ran"] == found[0]["ran"]
        assert [text for text in one["warnings"] if "no space left on device" not in text] == []
        assert len(one["warnings"]) == (fails_at is not None)
    assert len(found[0]["ran"]) == (6 if fails_at is None else max(0, fails_at - 1))
