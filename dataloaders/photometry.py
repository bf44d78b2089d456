"""Colour: normalisation, and the strong view's blur, jitter and grayscale, for a batch on its device.

What is random is drawn beforehand, image by image (``draw_photometry``), so that a batch is the same however
many processes share it.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
JITTER = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue
BLUR_KERNEL, BLUR_SIGMA = 5, 1.1  # 0.3 * ((5 - 1) / 2 - 1) + 0.8, as OpenCV derives it
P_BLUR, P_JITTER, P_GRAYSCALE = 0.5, 0.8, 0.2
_LUMA = (0.299, 0.587, 0.114)
_ORDERS = np.array([[(i, j, k, 6 - i - j - k)] for i in range(4) for j in range(4) for k in range(4)
                    if len({i, j, k}) == 3]).reshape(24, 4)  # fmt: skip


def draw_photometry(rng: np.random.Generator, *, strong: bool) -> np.ndarray:
    """Random parameters of one image: the strong view's, or those of plain colour jitter.

    float32 (8,): blur, jitter, grayscale (0 or 1); which of the 24 orders of the four operations; the factors of
    brightness, contrast, saturation and hue.
    """
    blur, jitter, grayscale = rng.random(3) < (P_BLUR, P_JITTER, P_GRAYSCALE) if strong else (False, True, False)
    brightness, contrast, saturation, hue = JITTER
    return np.array(
        [
            blur,
            jitter,
            grayscale,
            rng.integers(24),
            rng.uniform(1 - brightness, 1 + brightness),
            rng.uniform(1 - contrast, 1 + contrast),
            rng.uniform(1 - saturation, 1 + saturation),
            rng.uniform(-hue, hue),
        ],
        np.float32,
    )


def to_unit(images: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) as float32 in [0, 1]."""
    return images.float().div_(255)


def normalise(images: Tensor) -> Tensor:
    """Images in [0, 1], (N, 3, H, W), as the network takes them."""
    return (images - _by_channel(MEAN, images.device)) / _by_channel(STD, images.device)


def apply_photometry(images: Tensor, parameters: Tensor) -> Tensor:
    """Blur, colour jitter and grayscale of a batch.

    Parameters
    ----------
    images
        float32 (N, 3, H, W) in [0, 1].
    parameters
        float32 (N, 8) of ``draw_photometry``, on the CPU.

    Returns
    -------
    Tensor
        float32 (N, 3, H, W) in [0, 1].
    """
    images = images.clone()
    blur, jitter, grayscale = (_where(parameters[:, column] > 0, images) for column in range(3))
    if len(blur):
        images[blur] = gaussian_blur(images[blur])
    jittered = parameters[:, 1] > 0
    orders = torch.from_numpy(_ORDERS)[parameters[:, 3].long()]
    for step in range(4) if len(jitter) else ():
        for operation, function in enumerate((_brightness, _contrast, _saturation, _hue)):
            chosen = jittered & (orders[:, step] == operation)
            if chosen.any():
                factor = parameters[chosen, 4 + operation].to(images.device, non_blocking=True).view(-1, 1, 1, 1)
                index = _where(chosen, images)
                images[index] = function(images[index], factor)
    if len(grayscale):
        images[grayscale] = _luma(images[grayscale]).expand(-1, 3, -1, -1)
    return images


def _where(chosen: Tensor, like: Tensor) -> Tensor:
    return chosen.nonzero().flatten().to(like.device, non_blocking=True)


@cache
def _by_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """Constants of red, green and blue, (1, 3, 1, 1). Kept: to copy them anew would make a GPU wait for the host."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


def gaussian_blur(images: Tensor) -> Tensor:
    """Blur with a 5x5 Gaussian, edges reflected, as OpenCV does it."""
    at = torch.arange(BLUR_KERNEL, dtype=torch.float32, device=images.device) - BLUR_KERNEL // 2
    weights = torch.exp(-(at**2) / (2 * BLUR_SIGMA**2))
    weights = weights / weights.sum()
    half = BLUR_KERNEL // 2
    padded = F.pad(images, (half, half, half, half), mode="reflect").flatten(0, 1).unsqueeze(1)
    blurred = F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return blurred.view_as(images)


def _luma(images: Tensor) -> Tensor:
    return (images * _by_channel(_LUMA, images.device)).sum(1, keepdim=True)


def _blend(images: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp_(0, 1)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, 0.0, factor)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _luma(images).mean((1, 2, 3), keepdim=True), factor)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _luma(images), factor)


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` of a full circle, in HSV."""
    value, strongest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    divisor = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    red, green, blue = images.split(1, 1)
    sixth = torch.where(
        strongest == 0,
        (green - blue) / divisor,
        torch.where(strongest == 1, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue = sixth / 6 + shift
    # f(n) = v - c max(0, min(k, 4 - k, 1)), k = (n + 6 hue) mod 6, for n = 5 (red), 3 (green), 1 (blue)
    k = torch.remainder(_by_channel((5.0, 3.0, 1.0), images.device) + 6 * hue, 6)
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
