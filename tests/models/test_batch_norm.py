"""Batch norm over the processes, and over several batches in one call."""

import pytest
import torch
from torch import Tensor, nn

from models.batch_norm import BatchNorm2d, BatchNormAct2d, separate_batches, synchronise_batch_norm
from utils.distributed import launch, rank

IMAGES_OF_RANK_0 = 3  # of 4: the processes' batches differ in size


def passes() -> list[Tensor]:
    """Two batches; the first channel has a small spread about a large mean."""
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([500.0, 2, 2, 2, 2]).view(1, 5, 1, 1)
    return [means + 3 * torch.randn(4, 5, 6, 7, generator=generator) for _ in range(2)]


def norm() -> nn.Module:
    """Batch norm with parameters that matter, in a network as it comes."""
    module = nn.Sequential(BatchNorm2d(5))
    with torch.no_grad():
        module[0].weight.copy_(torch.linspace(0.5, 1.5, 5))
        module[0].bias.copy_(torch.linspace(-1, 1, 5))
    return module


def run(module: nn.Sequential, part: slice) -> dict[str, Tensor]:
    """Two training passes over this part of each batch, then one in evaluation mode; what came of it."""
    found = {}
    for number, whole in enumerate(passes()):
        whole = whole.to(module[0].weight.device)
        x = whole[part].clone().requires_grad_()
        y = module(x)
        (y.pow(3) * whole[part].cos()).sum().backward()
        found |= {f"y{number}": y.detach(), f"gradient{number}": x.grad}
    module.eval()
    found["evaluated"] = module(whole[part]).detach()
    found |= {name: value.grad for name, value in module.named_parameters()}
    return found | {f"state {name}": value for name, value in module.state_dict().items()}


class CudaKernels:
    """What the kernels of ``nn.SyncBatchNorm`` do, which only CUDA has: batch norms "on CUDA" run by these instead."""

    def batch_norm_stats(self, x, eps):
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        return mean, torch.rsqrt(variance + eps)

    def batch_norm_gather_stats_with_counts(self, x, means, invstds, running_mean, running_var, momentum, eps, counts):
        shares, count = counts.unsqueeze(1) / counts.sum(), counts.sum()
        mean = (shares * means).sum(0)
        variance = (shares * (invstds**-2 - eps + (means - mean) ** 2)).sum(0)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * count / (count - 1), momentum)
        return mean, torch.rsqrt(variance + eps)

    def batch_norm_elemt(self, x, weight, bias, mean, invstd, eps):
        assert x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
        return (x - wide(mean)) * wide(invstd * weight) + wide(bias)

    def batch_norm_backward_reduce(self, gradient, x, mean, invstd, weight, *needed):
        of_mean, of_deviation = gradient.sum((0, 2, 3)), (gradient * (x - wide(mean))).sum((0, 2, 3))
        return of_mean, of_deviation, of_deviation * invstd, of_mean.clone()

    def batch_norm_backward_elemt(self, gradient, x, mean, invstd, weight, of_mean, of_deviation, counts):
        assert counts.dtype == torch.int32
        of_mean, of_deviation = of_mean / counts.sum(), of_deviation / counts.sum() * invstd**2
        return (gradient - wide(of_mean) - (x - wide(mean)) * wide(of_deviation)) * wide(invstd * weight)


def wide(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def in_each_process(folder, device: torch.device) -> None:
    """What ``run`` finds in every process, written to ``folder``; with ``kernels``, as on CUDA."""
    part = slice(0, IMAGES_OF_RANK_0) if rank() == 0 else slice(IMAGES_OF_RANK_0, 4)
    torch.save(run(synchronise_batch_norm(norm()), part), folder / f"{rank()}.pt")
    for name in (name for name in vars(CudaKernels) if name.startswith("batch_norm")):
        setattr(torch, name, getattr(CudaKernels(), name))
    module = synchronise_batch_norm(norm())
    module[0].by_operations = module[0].by_kernels
    torch.save(run(module, part), folder / f"{rank()}_kernels.pt")


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    launch(in_each_process, (folder,), 2, "cpu")
    return folder


@pytest.fixture(params=["", "_kernels"], ids=["operations", "kernels"])
def parts(processes, request):
    """What each of two processes found."""
    return [torch.load(processes / f"{number}{request.param}.pt", weights_only=True) for number in (0, 1)]


def test_batch_norm_of_two_processes_is_that_of_one_on_the_whole_batch(parts):
    whole = run(norm(), slice(0, 4))
    for name in ("y0", "y1", "gradient0", "gradient1", "evaluated"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], atol=1e-4, rtol=1e-4)


def test_running_statistics_of_two_processes_are_those_of_one(parts):
    whole = run(norm(), slice(0, 4))
    names = [name for name in whole if name.startswith("state ")]
    assert len(names) == 5
    for name in names:
        for part in parts:
            torch.testing.assert_close(part[name], whole[name])


def test_gradients_of_batch_norms_parameters_add_up_to_those_of_one_process(parts):
    whole = run(norm(), slice(0, 4))
    for name in ("0.weight", "0.bias"):
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name], atol=1e-2, rtol=1e-4)


def test_activation_inside_a_norm_is_kept_over_processes(monkeypatch):
    monkeypatch.setattr("models.batch_norm.world_size", lambda: 2)
    plain, inside = norm()[0].eval(), norm()[0].eval()
    inside.__class__, inside.drop, inside.act = BatchNormAct2d, nn.Identity(), nn.ReLU()
    x = passes()[0]
    torch.testing.assert_close(synchronise_batch_norm(nn.Sequential(inside))[0](x), plain(x).relu())


def test_batch_norm_of_one_process_stays_as_it_is():
    module = norm()
    assert type(synchronise_batch_norm(module)[0]) is BatchNorm2d


def test_several_batches_in_one_call_are_as_one_call_for_each():
    batches = [2 + torch.randn(n, 5, 6, 7) for n in (3, 1, 2)]
    apart, joined = norm(), norm()
    expected = torch.cat([apart(batch) for batch in batches])
    with separate_batches(3, 1, 2):
        actual = joined(torch.cat(batches))
        (actual**3).sum().backward()
    (expected**3).sum().backward()
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(joined[0].weight.grad, apart[0].weight.grad)
    torch.testing.assert_close(joined.state_dict(), apart.state_dict())
    assert joined[0].num_batches_tracked == 3


def test_outside_and_in_evaluation_there_is_one_batch():
    x = torch.randn(4, 5, 6, 7)
    plain, module = norm(), norm()
    with separate_batches(1, 3):
        torch.testing.assert_close(module.eval()(x), plain.eval()(x))
    torch.testing.assert_close(module.train()(x), plain.train()(x))
