"""Steps whose loss is not finite are skipped."""

import torch
from torch import Tensor, nn

from utils.distributed import all_sum, gather
from utils.errors import UsageError
from utils.logger import log

Ids = dict[str, list[str]]


class StepGuard:
    """Skips a step of the optimiser where loss or gradient is not finite, and undoes what it did to batch norm.

    The decision is taken on the device, which therefore never waits: which images it was is looked up in ``report``.

    Parameters
    ----------
    network
        The network, unwrapped.
    optimizer
        Fused; it leaves parameters and moments alone where its ``found_inf`` is 1. SGD's momentum that it does not have
        yet starts from zeros.
    max_bad_steps
        So many skipped steps in a row end the run.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, max_bad_steps: int):
        self.optimizer, self.max_bad_steps = optimizer, max_bad_steps
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self._sizes = [buffer.numel() for buffer in self._statistics]
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                # Fused SGD makes momentum of uninitialised memory at its first step and leaves it so where
                # that is skipped. From zeros the first step comes out the same.
                if group.get("momentum") and optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self._recent: list[tuple[int, Tensor, Ids]] = []
        self._in_a_row = 0

    def before_forward(self) -> None:
        """Keep batch norm's running statistics."""
        self._kept = self._flat_statistics()

    def step(self, total: Tensor, iteration: int, ids: Ids) -> Tensor:
        """Step, or do not: a bool scalar on the device, whether the step was good. After ``backward``."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        size = total.detach() + nn.utils.get_total_norm(gradients)
        bad = all_sum((~torch.isfinite(size)).float()).clamp_(max=1)
        self.optimizer.found_inf = bad  # type: ignore[attr-defined] # as GradScaler does
        self.optimizer.step()
        statistics = torch.where(bad > 0, self._kept, self._flat_statistics())
        parts = zip(self._statistics, statistics.split(self._sizes), strict=True)
        torch._foreach_copy_(self._statistics, [value.view_as(buffer) for buffer, value in parts])
        self._recent.append((iteration, bad, ids))
        return bad == 0

    def report(self) -> None:
        """Log the images of the steps that were skipped since the last time.

        Raises
        ------
        UsageError
            ``max_bad_steps`` in a row were skipped.
        """
        recent, self._recent = self._recent, []
        if not recent:
            return
        for (iteration, _, ids), bad in zip(recent, torch.stack([bad for _, bad, _ in recent]).tolist(), strict=True):
            self._in_a_row = self._in_a_row + 1 if bad else 0
            if not bad:
                continue
            images = "; ".join(
                f"{stream} {', '.join(id_ for part in gather(own) for id_ in part)}" for stream, own in ids.items()
            )
            log.warning(f"iteration {iteration}: loss or gradient is not finite; step skipped; images: {images}")
            if self._in_a_row == self.max_bad_steps:
                raise UsageError(
                    f"loss or gradient was not finite in {self._in_a_row} steps in a row, the last of which had the "
                    f"images {images}. The weights of before are saved. Lower optimizer.args.lr, or look at them "
                    "(--check_data True)."
                )

    def _flat_statistics(self) -> Tensor:
        return torch.cat([buffer.flatten() for buffer in self._statistics])
