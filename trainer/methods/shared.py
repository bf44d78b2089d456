"""Settings that any method may take: who labels unlabelled images (``model.teacher``), CutMix (``model.cutmix``).

A method takes them by a ``label(u_weak)`` that gives what its pseudo labels are made of, and a ``forward`` that calls
the ``label`` it is given, if any, in its place.
"""

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataloaders.cutmix import cut_and_mix

MOST_KEPT = 0.996  # of the teacher in an iteration


class Teacher(nn.Module):
    """The moving average of a step's network, parameters and buffers, in evaluation mode (Tarvainen and Valpola, 2017).

    Attributes
    ----------
    step
        The step with the averaged network, of which only ``label`` is called.
    """

    step: Any

    def __init__(self, step: nn.Module):
        super().__init__()
        self.step = copy.deepcopy(step).requires_grad_(False).eval()
        self._tensors: tuple[list[Tensor], list[Tensor]] | None = None

    @property
    def network(self) -> nn.Module:
        """The averaged network."""
        return self.step.network

    def train(self, mode: bool = True) -> "Teacher":
        """Nothing: it is always in evaluation mode."""
        return self

    @torch.no_grad()
    def follow(self, student: nn.Module, iteration: int, good: Tensor) -> None:
        """teacher = teacher x m + student x (1 - m), m = min(1 - 1 / (iteration + 1), ``MOST_KEPT``).

        ``good``, a bool scalar on the device, is whether the optimiser's step was taken; without one nothing moves.
        """
        if self._tensors is None:  # once, when both are where they stay: looking for them takes milliseconds
            self._tensors = _averaged(self.network), _averaged(student)
        own, given = self._tensors
        kept = torch.where(good, min(1 - 1 / (iteration + 1), MOST_KEPT), 1.0)
        moved = torch._foreach_mul(given, 1 - kept)
        torch._foreach_mul_(own, kept)
        torch._foreach_add_(own, moved)


def _averaged(network: nn.Module) -> list[Tensor]:
    return [value for value in (*network.parameters(), *network.buffers()) if value.is_floating_point()]


class SharedStep(nn.Module):
    """A method's step, with a teacher that labels for it, or with CutMix, or with both.

    Parameters
    ----------
    step
        The method's.
    teacher
        Whether a teacher labels in place of the network itself.
    """

    step: Any

    def __init__(self, step: nn.Module, *, teacher: bool):
        super().__init__()
        self.step = step
        self.teacher = Teacher(step) if teacher else None

    def forward(
        self, u_box: Tensor | None = None, u_padding: Tensor | None = None, **batch: Tensor
    ) -> dict[str, Tensor]:
        """What the step returns for ``batch``.

        Parameters
        ----------
        u_box
            The boxes of each strong view, float32 (N, V, 4): its labels are cut and mixed as it was itself.
        u_padding
            Where u_weak is padding, bool (N, H, W): probabilities are 0 there, so that no pseudo label is sure.
        """
        if "u_weak" not in batch:
            return self.step(**batch)
        return self.step(**batch, label=partial(self._label, u_box, u_padding))

    def _label(self, boxes: Tensor | None, padding: Tensor | None, u_weak: Tensor) -> tuple[Tensor, ...]:
        maps = (self.step if self.teacher is None else self.teacher.step).label(u_weak)
        if padding is not None:
            there = F.interpolate(1 - padding.unsqueeze(1).float(), size=maps[0].shape[-2:], mode="nearest-exact")
            maps = tuple(_where_there(values, there) for values in maps)
        if boxes is None:
            return maps
        n_views = boxes.shape[1]
        return tuple(cut_and_mix(values.repeat_interleave(n_views, 0), boxes) for values in maps)


def _where_there(values: Tensor, there: Tensor) -> Tensor:
    """Probabilities (N, …, H, W) times ``there`` (N, 1, H, W); indices as they are."""
    if not values.is_floating_point():
        return values
    return values * there.view(len(values), *[1] * (values.ndim - 3), *values.shape[-2:])
