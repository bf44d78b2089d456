"""Whole images through a network: padding, normalisation, precision and the cut back to their size, written once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dataloaders.geometry import pad_to_multiple
from dataloaders.loaders import evaluation_loader
from dataloaders.photometry import normalise, to_unit
from dataloaders.sets.description import Sample, SegmentationData
from dataloaders.streams import EvaluationStream
from models.execution import autocast, choose_precision, evaluation_copy
from utils.config import Config
from utils.distributed import rank, world_size


def prepare(images: Tensor) -> Tensor:
    """Whole images as a network takes them: padded to multiples of 8 and normalised.

    (N, 3, H, W), in [0, 1] → float32 (N, 3, H', W').
    """
    return normalise(pad_to_multiple(images))


class WholeImages:
    """A network for whole images: what validation, ``--test``, ``--predict`` and the report's pictures have in common.

    It is a copy that only evaluates; the network itself is left as it is.

    Parameters
    ----------
    network
        Normalised images (N, 3, H, W) → class logits (N, C, H, W).
    device
        Where the copy runs.
    precision
        As ``trainer.precision``.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: str = "auto"):
        self.device = device
        self.network = evaluation_copy(network).to(device)
        self.autocast = autocast(choose_precision(precision, device), device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Class logits of every image.

        Parameters
        ----------
        images
            uint8 (N, 3, H, W) on any device, padded where their sizes differ.
        sizes
            Height and width of each, without padding.

        Returns
        -------
        list
            float32 (C, height, width) on the network's device.
        """
        prepared = prepare(to_unit(images.to(self.device, non_blocking=True)))
        with self.autocast:
            logits = self.network(prepared).float()
        return [of_image[:, :height, :width] for of_image, (height, width) in zip(logits, sizes, strict=True)]


def whole_image_loader(
    config: Config, data: SegmentationData, samples: Sequence[Sample], device: torch.device
) -> DataLoader:
    """Whole images with their masks: those of ``samples`` that fall to this process, each once over all processes."""
    return evaluation_loader(
        EvaluationStream(data, samples),
        config.val_loader.batch_size,
        config.val_loader.num_workers,
        rank=rank(),
        world_size=world_size(),
        pin_memory=device.type == "cuda",
    )
