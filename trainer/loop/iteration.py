"""What an iteration is made of before the optimiser's step: learning rates, the state of dropout, gradients."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.execution import autocast, choose_precision
from utils.distributed import rank
from utils.schedule import Schedule


def mixed_precision(name: str, device: torch.device) -> tuple[torch.autocast, torch.amp.GradScaler]:
    """The context of ``trainer.precision``, and what scales losses, which fp16 alone needs."""
    precision = choose_precision(name, device)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=precision == "fp16")
    return autocast(precision, device), scaler


def begin_iteration(optimizer: torch.optim.Optimizer, schedule: Schedule, seed: int, iteration: int) -> None:
    """Learning rates by the schedule, no gradients, and dropout's state.

    That follows from seed, rank and iteration, so that a run can go on from any iteration.
    """
    factor = schedule.lr_factor(iteration)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    torch.manual_seed((seed * 1_000_003 + iteration) * 1_009 + rank())
    optimizer.zero_grad(set_to_none=True)


def forward_and_backward(
    step: nn.Module, batch: dict[str, Tensor], parts: int, precision: torch.autocast, scaler: torch.amp.GradScaler
) -> dict[str, Tensor]:
    """Gradients of a batch, scaled; what the step reports.

    With ``parts`` above 1 the batch goes through the step in so many equal parts, one after another, and the gradients
    are their mean; what is reported is put together as if it were of the whole batch.
    """
    outs = []
    for number in range(parts):
        part = batch if parts == 1 else {name: values.chunk(parts)[number] for name, values in batch.items()}
        with _communicating(step, at_all=number + 1 == parts):
            with precision:
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
