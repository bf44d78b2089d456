"""How a training step is executed: its precision, and compiled or not. What comes out is the same up to rounding."""

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.timm_trunk import TimmTrunk
from utils.distributed import gather
from utils.errors import NotFiniteError, first_line
from utils.logger import log

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")


def choose_precision(name: str, device: torch.device) -> str:
    """``fp32``, ``bf16`` or ``fp16``; ``auto`` is bf16 on a GPU that has it, else fp32."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a network runs in ``precision``."""
    if precision == "fp32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=DTYPES[precision])


def be_repeatable(seed: int, *, deterministic: bool) -> None:
    """Let what is random from here on follow from ``seed``; and take only operations that give the same bits each time.

    The latter with ``deterministic``, and for a GPU, which has others: one without such a form raises ``RuntimeError``
    with its name. Call it before the process multiplies its first matrices there: cuBLAS reads its variable once.
    """
    torch.manual_seed(seed)
    if deterministic and os.environ.get(CUBLAS_WORKSPACE) not in DETERMINISTIC_WORKSPACES:
        os.environ[CUBLAS_WORKSPACE] = DETERMINISTIC_WORKSPACES[0]
    torch.use_deterministic_algorithms(deterministic)


@contextmanager
def tuned_convolutions() -> Iterator[None]:
    """Within, cuDNN tries its algorithms once for every shape: worth it for training, whose shapes stay the same.

    Not where operations are to be deterministic: the fastest one may be another in the next process.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def evaluation_copy(network: nn.Module) -> nn.Module:
    """A copy that only evaluates, faster: channels last, and batch norms part of the convolutions they follow.

    Which convolution a batch norm follows is told from the order in which they are defined: a network of this project
    defines each batch norm right after the convolution whose output it normalises, in the same module. A test holds
    this for every trunk of ours; timm's trunks keep their batch norms.
    """
    network = copy.deepcopy(network).eval()
    foreign = {inner for module in network.modules() if isinstance(module, TimmTrunk) for inner in module.modules()}
    for module in (module for module in network.modules() if module not in foreign):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in PyTorch's stubs


def count_not_finite(logits: Tensor) -> Tensor:
    """Pixels with a logit that is not finite, an int64 scalar on the device: logits (N, C, H, W) or (C, H, W).

    Their ``argmax`` is a class like any other: without this, a network that has diverged predicts class 0.
    """
    return (~logits.isfinite()).any(-3).sum()


def refuse_not_finite(pixels: int, name: str) -> None:
    """Raise ``NotFiniteError`` where so many ``pixels`` of the network called ``name`` are not finite."""
    if pixels:
        raise NotFiniteError(
            f"{name}: its logits are not finite in {pixels:,} pixels; it has diverged. Take an earlier checkpoint, or "
            "train again with a lower optimizer.args.lr."
        )


def compile_forward(module: nn.Module) -> None:
    """Let ``module`` run compiled from its next call on; plainly, with a warning, where that fails.

    All processes run it compiled or all plainly, since they exchange sums on the way and a compiled one may do so in
    another order. So they ask each other about every graph before any of them runs it; one that fails before it has a
    graph answers as well. The module stays what it is, so that parameters keep their names.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

    plain = module.forward
    failure: str | None = None

    def compile_together(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        nonlocal failure
        own, compiled_graph = None, None
        try:
            compiled_graph = compile_graph(graph, inputs)
        except Exception as error:  # of whatever the compiler calls: the warning says it
            own = first_line(error)
        failure = _first_failure(own)
        if compiled_graph is None or failure is not None:
            raise RuntimeError(failure)
        return compiled_graph

    compiled = torch.compile(plain, backend=compile_together)

    def forward(*args, **kwargs):
        try:
            return compiled(*args, **kwargs)
        except TorchDynamoException as error:
            reason = failure or _first_failure(first_line(error))
            log.warning(f"trainer.compile: compiling failed, going on without ({reason})")
            module.forward = plain
            return plain(*args, **kwargs)

    module.forward = forward


def compile_graph(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
    """What ``torch.compile`` does by default, with the dropout of the plain step.

    And with its backward pass at once, not when that is first called.
    """
    import torch._functorch.config
    from torch._inductor.compile_fx import compile_fx

    with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):
        return compile_fx(graph, inputs, config_patches={"fallback_random": True})


def _first_failure(own: str | None) -> str | None:
    """What the first process says that failed, None where none did; ``own`` is this one's. All must call it."""
    return next((failure for failure in gather(own) if failure is not None), None)
