"""What an iteration begins with: learning rates, the state of dropout, and gradients."""

import torch
from torch import Tensor, nn

from utils.distributed import rank


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group ``factor`` times its initial rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def seed_dropout(seed: int, iteration: int) -> None:
    """Let dropout follow from seed, rank and iteration, so that a run can go on from any iteration."""
    torch.manual_seed((seed * 1_000_003 + iteration) * 1_009 + rank())


def forward_and_backward(
    step: nn.Module, batch: dict[str, Tensor], autocast: torch.autocast, scaler: torch.amp.GradScaler
) -> dict[str, Tensor]:
    """Gradients of a batch, scaled; what the step reports."""
    with autocast:
        out = step(**batch)
    scaler.scale(out["total"]).backward()
    return {name: value.detach() for name, value in out.items()}
