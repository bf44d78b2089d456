"""How a validation image is evaluated: whole or by a sliding window, at one or several scales, mirrored or not."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataloaders.geometry import resize_image
from trainer.prediction.whole_image import WholeImages
from utils.config import Config

WINDOWS_AT_ONCE = 8
STRIDE = 2 / 3
"""Of a sliding window, as a part of its side."""


class Protocol:
    """A network as ``evaluation`` of a configuration evaluates it; called like ``WholeImages``.

    By the sliding window, the softmax of the windows is averaged where they overlap, as the field evaluates Cityscapes;
    what is returned is its logarithm, so that logits and probabilities follow in the same way as from a whole image.
    """

    def __init__(self, network: nn.Module, device: torch.device, config: Config):
        settings = config.evaluation
        self.logits_of = WholeImages(network, device, config.trainer.precision)
        self.slides, self.scales, self.flip = settings.mode == "slide", settings.scales, settings.flip
        self.window = settings.window or config.train_supervised.crop_size

    @torch.inference_mode()
    def __call__(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Class logits float32 (C, height, width) of every image, uint8 (N, 3, H, W), padded where sizes differ."""
        if not self.slides and self.scales == [1] and not self.flip:
            return self.logits_of(images, sizes)
        found = []
        for image, (height, width) in zip(images, sizes, strict=True):
            pixels = image[:, :height, :width].permute(1, 2, 0).cpu().numpy()
            found.append(mean_over_views(pixels, self.scales, self.flip, self._one_view))
        return found

    def _one_view(self, image: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        if not self.slides:
            return self.logits_of(pixels.unsqueeze(0), [image.shape[:2]])[0]
        return slide(pixels, self.logits_of, self.window)


def mean_over_views(
    image: np.ndarray, scales: Sequence[float], flip: bool, logits_of: Callable[[np.ndarray], Tensor]
) -> Tensor:
    """The mean logits of an image at all scales, mirrored or not: uint8 (H, W, 3) → (C, H, W)."""
    views = [(scale, mirror) for scale in scales for mirror in ((False, True) if flip else (False,))]
    total = _view(image, *views[0], logits_of)
    for view in views[1:]:
        total.add_(_view(image, *view, logits_of))
    return total.div_(len(views)) if len(views) > 1 else total


def _view(image: np.ndarray, scale: float, mirror: bool, logits_of: Callable[[np.ndarray], Tensor]) -> Tensor:
    size = image.shape[:2]
    scaled_size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    image = resize_image(image, scaled_size)
    logits = logits_of(image[:, ::-1] if mirror else image)
    if mirror:
        logits = logits.flip(-1)
    if scaled_size != size:
        logits = F.interpolate(logits.unsqueeze(0), size=size, mode="bilinear", align_corners=False)[0]
    return logits


def slide(image: Tensor, logits_of: WholeImages, window: int) -> Tensor:
    """The logarithm of the mean softmax of windows at strides of two thirds of their side; the last ends at the edge.

    uint8 (3, H, W) → float32 (C, H, W).
    """
    height, width = image.shape[1:]
    places = [(top, left) for top in _starts(height, window) for left in _starts(width, window)]
    shape = min(window, height), min(window, width)
    total = count = torch.zeros(0)
    for first in range(0, len(places), WINDOWS_AT_ONCE):
        some = places[first : first + WINDOWS_AT_ONCE]
        crops = torch.stack([image[:, top : top + shape[0], left : left + shape[1]] for top, left in some])
        for (top, left), logits in zip(some, logits_of(crops, [shape] * len(some)), strict=True):
            if not len(total):  # the classes are known, and the device
                total, count = logits.new_zeros(len(logits), height, width), logits.new_zeros(height, width)
            total[:, top : top + shape[0], left : left + shape[1]] += logits.softmax(0)
            count[top : top + shape[0], left : left + shape[1]] += 1
    return (total / count).clamp_min_(torch.finfo(torch.float32).tiny).log_()


def _starts(side: int, window: int) -> list[int]:
    last = max(0, side - window)
    return [*range(0, last, max(1, int(window * STRIDE))), last]
