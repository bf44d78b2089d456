"""Known weights for the parity tests: every entry of a state dict from its name and shape alone."""

import zlib
from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

CLASSIFIER_GAIN = 12.0  # so that many pixels are confident enough to count in the unlabelled losses


@cache  # networks have most of their entries in common
def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value of one entry; the random stream starts at the CRC-32 of its name."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    stream = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_mean"):
        values = stream.normal(0, 0.1, shape)
    elif name.endswith("running_var"):
        values = stream.uniform(0.8, 1.2, shape)
    elif len(shape) == 4:
        gain = CLASSIFIER_GAIN if name.startswith("classifier") else 1.0
        values = gain * stream.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
    elif name.endswith("weight"):
        values = stream.uniform(0.3, 0.7, shape)
    else:
        values = stream.normal(0, 0.05, shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def filled_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every entry of ``{name: shape}``."""
    return {name: filled(name, tuple(shape)) for name, shape in shapes.items()}


def fill_network(network: nn.Module) -> nn.Module:
    """Put a network into the known state, and return it."""
    network.load_state_dict(filled_state({name: v.shape for name, v in network.state_dict().items()}))
    return network
