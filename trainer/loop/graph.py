"""An iteration's forward and backward pass as one CUDA graph: the host starts it at once, not kernel by kernel."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.config import Config
from utils.errors import first_line
from utils.logger import log

Batch = dict[str, Tensor]
WARM_UP = 3  # passes of a shape that run as they are: what cuDNN tries before it chooses cannot be recorded
_ROOM = 0.1  # of the GPU's memory, which a recording leaves to all else or is not kept


def can_be_recorded(config: Config, device: torch.device) -> bool:
    """Passes on the process's GPU, of one process, since many exchange gradients on the way; and not compiled."""
    trainer = config.trainer
    if not trainer.cuda_graph or trainer.compile or device.type != "cuda" or dist.is_initialized():
        return False
    return device.index in (None, torch.cuda.current_device())


class RecordedPass:
    """What a forward and backward pass gives, from its fourth call with a shape on by a recording of it.

    A recording runs the same kernels on the same numbers, those of dropout included. It reads the batch from a place of
    its own; gradients and outputs are in places of its own, too, and the next call writes over them. Where a pass
    waits for the GPU, or recording fails, a warning says why and all goes on without.

    Parameters
    ----------
    parameters
        All that a pass gives gradients.
    can_record
        False never records.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], can_record: bool):
        self._parameters, self.can_record = list(parameters), can_record
        self._shapes: dict[str, tuple] = {}
        self._passes, self._looked_at = 0, False
        self._forget()

    def __call__(self, run: Callable[[Batch], Batch], batch: Batch) -> Batch:
        """``run(batch)``, which gives parameters, that have none, their gradients and returns tensors.

        Whatever else it reads must stay where it is from call to call, and change on the GPU alone.
        """
        if not self.can_record:
            return run(batch)
        shapes = {name: (values.shape, values.dtype) for name, values in batch.items()}
        if shapes != self._shapes:
            self._shapes, self._passes, self._looked_at = shapes, 0, False
            self._forget()
        self._passes += 1
        if self._passes == WARM_UP and not self._looked_at:
            self._looked_at = True
            with _waits_noticed() as found:
                out = run(batch)
            if found:
                self._stop_recording(f"it waits for the GPU at {found[0]}")
            return out
        if self._graph is None and self._passes > WARM_UP:
            self._record(run, batch)
        if self._graph is None:
            return run(batch)
        torch._foreach_copy_(list(self._batch.values()), [batch[name] for name in self._batch])
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return dict(self._out)

    def give_up(self) -> None:
        """Before other work on the GPU: leave it the memory. A plain pass, then a recording anew come next."""
        if self._graph is not None:
            self._forget()
            self._passes = WARM_UP - 1
            torch.cuda.empty_cache()

    def _forget(self) -> None:
        """The recording, where there is one, and the gradients, whose memory is its."""
        for parameter in self._parameters:
            parameter.grad = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch = {}
        self._out: Batch = {}
        self._gradients: list[Tensor | None] = []

    def _record(self, run: Callable[[Batch], Batch], batch: Batch) -> None:
        """Record a pass, of which nothing is computed."""
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        state = generator.graphsafe_get_state()
        try:
            own = {name: values.clone() for name, values in batch.items()}
            # Where recording fails, the inner context does not go back to this stream. Other threads, such as those
            # that load data, may go on with what cannot be recorded.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, capture_error_mode="thread_local"),
            ):
                out = run(own)
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a recording that had failed says no more than that
            if not isinstance(cause, Exception):
                raise
            self._forget()
            generator.graphsafe_set_state(state.clone_state())  # the old one may take itself for part of a recording
            self._stop_recording(first_line(cause))
            return
        free, total = torch.cuda.mem_get_info()
        if free < _ROOM * total:
            self._forget()
            self._stop_recording("it would leave less than a tenth of the GPU's memory to all else")
            return
        self._graph, self._batch, self._out = graph, own, out
        self._gradients = [parameter.grad for parameter in self._parameters]

    def _stop_recording(self, reason: str) -> None:
        log.warning(f"trainer.cuda_graph: the iteration is not recorded, going on without ({reason})")
        self.can_record = False


@contextmanager
def _waits_noticed() -> Iterator[list[str]]:
    """Where the host waits for the GPU within, found without harm: in a recording it would be an error.

    Other warnings are those of the passes before.
    """
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    found += [f"{one.filename}:{one.lineno}" for one in caught if "synchronizing CUDA operation" in str(one.message)]
