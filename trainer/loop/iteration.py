"""What an iteration begins with: learning rates, the state of dropout, and gradients."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.distributed import rank


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group ``factor`` times its initial rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def seed_dropout(seed: int, iteration: int) -> None:
    """Let dropout follow from seed, rank and iteration, so that a run can go on from any iteration."""
    torch.manual_seed((seed * 1_000_003 + iteration) * 1_009 + rank())


def forward_and_backward(
    step: nn.Module, batch: dict[str, Tensor], parts: int, autocast: torch.autocast, scaler: torch.amp.GradScaler
) -> dict[str, Tensor]:
    """Gradients of a batch, scaled; what the step reports.

    With ``parts`` above 1 the batch goes through the step in so many equal parts, one after another, and the gradients
    are their mean; what is reported is put together as if it were of the whole batch.
    """
    outs = []
    for number in range(parts):
        part = batch if parts == 1 else {name: values.chunk(parts)[number] for name, values in batch.items()}
        with _communicating(step, at_all=number + 1 == parts):
            with autocast:
                out = step(**part)
            scaler.scale(out["total"] / parts).backward()
        outs.append({name: value.detach() for name, value in out.items()})
    return outs[0] if parts == 1 else {name: _joined([out[name] for out in outs]) for name in outs[0]}


def _communicating(step: nn.Module, *, at_all: bool) -> AbstractContextManager:
    """Processes exchange their gradients once a batch: with its last part."""
    return step.no_sync() if isinstance(step, DistributedDataParallel) and not at_all else nullcontext()


def _joined(values: list[Tensor]) -> Tensor:
    """Scalars' mean, or what is of images one after another."""
    return torch.stack(values).mean(0) if values[0].ndim == 0 else torch.cat(values)
