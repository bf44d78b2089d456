"""An iteration's forward and backward pass as one CUDA graph: the host starts it at once, not kernel by kernel."""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.config import Config
from utils.logger import log

Batch = dict[str, Tensor]
WARM_UP = 3  # passes of a shape that run as they are: what cuDNN tries before it chooses cannot be recorded
_ROOM = 0.25  # of the GPU's memory, which is left to others or the recording is given up for them


def can_be_recorded(config: Config, device: torch.device) -> bool:
    """Passes on a GPU, of one process, since many exchange gradients on the way; and not compiled."""
    trainer = config.trainer
    return trainer.cuda_graph and not trainer.compile and device.type == "cuda" and not dist.is_initialized()


class RecordedPass:
    """What a forward and backward pass gives, from its fourth call with a shape on by a recording of it.

    A recording runs the same kernels on the same numbers, those of dropout included. It reads the batch from a place of
    its own; gradients and outputs are in places of its own, too, and the next call writes over them. Where recording
    fails, a warning says why and all goes on without.

    Parameters
    ----------
    run
        Of a batch: gives parameters, which have none, their gradients and returns tensors. To be recorded it must not
        wait for the GPU, and whatever else it reads must stay where it is.
    parameters
        All that it gives gradients.
    possible
        False never records.
    """

    def __init__(self, run: Callable[[Batch], Batch], parameters: Iterable[nn.Parameter], possible: bool):
        self._run, self._parameters, self.possible = run, list(parameters), possible
        self._shapes: dict[str, tuple] = {}
        self._passes = 0
        self._forget()

    def _forget(self) -> None:
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch = {}
        self._out: Batch = {}
        self._gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch) -> Batch:
        if not self.possible:
            return self._run(batch)
        shapes = {name: (values.shape, values.dtype) for name, values in batch.items()}
        if shapes != self._shapes:
            self._shapes, self._passes = shapes, 0
            self._forget()
        self._passes += 1
        if self._graph is None and self._passes > WARM_UP:
            self._record(batch)
        if self._graph is None:
            return self._run(batch)
        torch._foreach_copy_(list(self._batch.values()), [batch[name] for name in self._batch])
        self._graph.replay()
        self._set_gradients(self._gradients)
        return dict(self._out)

    def make_room(self) -> None:
        """Before other work on the GPU: where its memory is scarce, give up what the recording holds until it is next
        needed, when it is made anew."""
        if self._graph is not None:
            free, total = torch.cuda.mem_get_info()
            if free < _ROOM * total:
                self._set_gradients([None] * len(self._parameters))
                self._forget()

    def _record(self, batch: Batch) -> None:
        """Record a pass, of which nothing is computed."""
        graph, own = torch.cuda.CUDAGraph(), {name: values.clone() for name, values in batch.items()}
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        state = generator.graphsafe_get_state()
        try:
            # Other threads, such as those that load data, may go on with what cannot be recorded.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                out = self._run(own)
        except RuntimeError as error:
            log.warning(f"trainer.cuda_graph: recording failed, going on without ({str(error).splitlines()[0]})")
            self.possible = False
            self._set_gradients([None] * len(self._parameters))
            generator.graphsafe_set_state(state.clone_state())  # the old one takes itself for part of a recording
            return
        self._graph, self._batch, self._out = graph, own, out
        self._gradients = [parameter.grad for parameter in self._parameters]

    def _set_gradients(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
