"""Colour: normalisation, and the strong view's blur, jitter and grayscale, for a batch on its device.

What is random is drawn beforehand, image by image (``draw_photometry``), so that a batch is the same however
many processes share it.
"""

from collections.abc import Callable
from functools import cache
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
JITTER = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue
UNIMATCH_JITTER, UNIMATCH_SIGMAS = (0.5, 0.5, 0.5, 0.25), (0.1, 2.0)  # the strong view of UniMatch's authors
BLUR_ROW = np.array([1, 4, 6, 4, 1]) / 16  # what OpenCV takes for a kernel of 5 and sigma 0
P_BLUR, P_JITTER, P_GRAYSCALE = 0.5, 0.8, 0.2
_LUMA = (0.299, 0.587, 0.114)
_ORDERS = np.array([[(i, j, k, 6 - i - j - k)] for i in range(4) for j in range(4) for k in range(4)
                    if len({i, j, k}) == 3]).reshape(24, 4)  # fmt: skip


def draw_photometry(rng: np.random.Generator, *, strong: bool, unimatch: bool = False) -> np.ndarray:
    """Random parameters of one image: the strong view's, or those of plain colour jitter.

    float32 (9,): blur, jitter, grayscale (0 or 1); which of the 24 orders of the four operations; the factors of
    brightness, contrast, saturation and hue; and the sigma of a blur that comes last, 0 for none. Only UniMatch's
    strong view has this one, in place of the first.
    """
    blur, jitter, grayscale = rng.random(3) < (P_BLUR, P_JITTER, P_GRAYSCALE) if strong else (False, True, False)
    brightness, contrast, saturation, hue = UNIMATCH_JITTER if unimatch else JITTER
    return np.array(
        [
            blur and not unimatch,
            jitter,
            grayscale,
            rng.integers(24),
            rng.uniform(1 - brightness, 1 + brightness),
            rng.uniform(1 - contrast, 1 + contrast),
            rng.uniform(1 - saturation, 1 + saturation),
            rng.uniform(-hue, hue),
            rng.uniform(*UNIMATCH_SIGMAS) if unimatch and blur else 0,
        ],
        np.float32,
    )


def to_unit(images: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) as float32 in [0, 1]."""
    return images.float().div_(255)


def normalise(images: Tensor) -> Tensor:
    """Images in [0, 1], (N, 3, H, W), as the network takes them."""
    return (images - _by_channel(MEAN, images.device)) / _by_channel(STD, images.device)


def denormalise(images: Tensor) -> Tensor:
    """What ``normalise`` took, rounded: uint8 (N, 3, H, W)."""
    mean, std = (_by_channel(values, images.device) for values in (MEAN, STD))
    return (images * std + mean).mul_(255).round_().clamp_(0, 255).byte()


def apply_photometry(images: Tensor, parameters: Tensor) -> Tensor:
    """Blur, colour jitter and grayscale of a batch.

    Parameters
    ----------
    images
        float32 (N, 3, H, W) in [0, 1].
    parameters
        float32 (…, 9) of ``draw_photometry``, N in all, on the CPU.

    Returns
    -------
    Tensor
        float32 (N, 3, H, W) in [0, 1].
    """
    apply = one_by_one if images.device.type == "cpu" else in_groups
    return apply(images, parameters.flatten(0, -2))


def one_by_one(images: Tensor, parameters: Tensor) -> Tensor:
    """``apply_photometry`` with parameters (N, 9), for a CPU: an image stays in the processor's cache."""
    return torch.cat([_apply(*one) for one in zip(images.split(1), parameters.tolist(), strict=True)])


def _apply(image: Tensor, parameters: list[float]) -> Tensor:
    blur, jitter, grayscale, order, *factors, sigma = parameters
    if blur:
        image = gaussian_blur(image)
    if jitter:
        for operation in _ORDERS[int(order)]:
            image = _JITTER[operation](image, factors[operation])
    image = _grayscale(image) if grayscale else image
    return gaussian_blur(image, gaussian_row(sigma)) if sigma else image


def in_groups(images: Tensor, parameters: Tensor) -> Tensor:
    """``apply_photometry`` with parameters (N, 9), for a GPU: one call for all images that an operation is next for.

    Which these are is known on the CPU, so nothing waits for the GPU.
    """
    done = list(images.split(1))
    drawn = parameters.tolist()
    values = parameters.to(images.device, non_blocking=True).view(-1, 9, 1, 1, 1)

    def change(chosen: list[int], operation: Callable[..., Tensor], column: int | None = None) -> None:
        if not chosen:
            return
        factors = [] if column is None else [torch.stack([values[n, column] for n in chosen])]
        changed = operation(torch.cat([done[n] for n in chosen]), *factors)
        for n, image in zip(chosen, changed.split(1), strict=True):
            done[n] = image

    change([n for n, row in enumerate(drawn) if row[0]], gaussian_blur)
    for place in range(4):
        for number, operation in enumerate(_JITTER):
            chosen = [n for n, row in enumerate(drawn) if row[1] and _ORDERS[int(row[3])][place] == number]
            change(chosen, operation, 4 + number)
    change([n for n, row in enumerate(drawn) if row[2]], _grayscale)
    change([n for n, row in enumerate(drawn) if row[8]], _own_blur, 8)
    return torch.cat(done)


@cache
def _by_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """Constants of red, green and blue, (1, 3, 1, 1). Kept: to copy them anew would make a GPU wait for the host."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


def gaussian_row(sigma: float) -> np.ndarray:
    """The weights of a Gaussian at whole pixels, as far as three sigmas; at most 13 for UniMatch's."""
    half = max(1, ceil(3 * sigma))
    row = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    return row / row.sum()


def gaussian_blur(images: Tensor, row: np.ndarray | Tensor = BLUR_ROW) -> Tensor:
    """Blur along rows and columns, edges reflected; by default ``cv2.GaussianBlur(image, (5, 5), 0)``.

    ``row`` holds the weights of neighbours, odd in number: for all images, or for each its own, (weights, N, 1, 1, 1).
    """
    half = len(row) // 2
    images = F.pad(images, (half, half, half, half), mode="reflect")
    for axis in (3, 2):  # sums of shifted images: several times faster than convolutions of one channel
        shifted = [images.narrow(axis, at, images.shape[axis] - 2 * half) for at in range(len(row))]
        images = shifted[0] * row[0]
        for weight, image in zip(row[1:], shifted[1:], strict=True):
            images = _add(images, image, weight)
    return images


def _own_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur with ``gaussian_row`` of each image's sigma, (N, 1, 1, 1)."""
    half = ceil(3 * UNIMATCH_SIGMAS[1])
    offsets = torch.arange(-half, half + 1, device=images.device).view(-1, 1, 1, 1, 1)
    rows = torch.exp(-(offsets**2) / (2 * sigmas**2)) * (offsets.abs() <= (3 * sigmas).ceil().clamp_min(1))
    return gaussian_blur(images, rows / rows.sum(0))


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, 1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _grayscale(images: Tensor) -> Tensor:
    return _luma(images).expand(-1, 3, -1, -1)


# The factors below are one number for all images, or for each its own, (N, 1, 1, 1).


def _add(images: Tensor, other: Tensor, factor: float | Tensor) -> Tensor:
    """``images`` itself, with ``factor * other`` added."""
    return images.addcmul_(other, factor) if isinstance(factor, Tensor) else images.add_(other, alpha=factor)


def _blend(images: Tensor, other: Tensor, factor: float | Tensor) -> Tensor:
    return _add(images * factor, other, 1 - factor).clamp_(0, 1)


def _brightness(images: Tensor, factor: float | Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: float | Tensor) -> Tensor:
    return _blend(images, _luma(images).mean((1, 2, 3), keepdim=True), factor)


def _saturation(images: Tensor, factor: float | Tensor) -> Tensor:
    return _blend(images, _luma(images), factor)


def _hue(images: Tensor, shift: float | Tensor) -> Tensor:
    """Turn the hue by ``shift`` of a full circle, in HSV."""
    red, green, blue = images.split(1, 1)
    value = torch.maximum(torch.maximum(red, green), blue)
    lowest = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - lowest
    # Ones where green, where red is strongest: lerp picks by them, exactly, and many times faster than where.
    is_green, is_red = (value - green).eq_(0), (value - red).eq_(0)
    hue = (red - green).add_(chroma, alpha=4).lerp_((blue - red).add_(chroma, alpha=2), is_green)
    hue = hue.lerp_(green - blue, is_red).div_(chroma.clamp_min(torch.finfo(chroma.dtype).tiny))
    hue.add_(6 * shift)  # in sixths of the circle
    hue.sub_((hue / 6).floor_().mul_(6))
    shares = torch.cat([(hue - 3).abs_().sub_(1), 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_()], 1).clamp_(0, 1)
    return shares.mul_(chroma).add_(lowest)


_JITTER = (_brightness, _contrast, _saturation, _hue)
