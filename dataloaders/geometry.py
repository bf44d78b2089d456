"""Random scale, pad, crop, flip of an image together with its masks (docs/method.md section 3)."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataloaders.images import shrinking
from dataloaders.reading import IGNORE
from utils.config_sections import StreamConfig

MEAN_COLOUR = (124, 116, 104)  # the normalisation mean (dataloaders/photometry.py) in 8 bit
LABELLED_SCALES = (0.5, 2.0)
UNLABELLED_SCALES = (0.8, 2.0)
BICUBIC_REACH = 2  # source pixels on each side, where an image grows
MAX_ANGLE = 10
MAX_BLUR_SIGMA = 1.5
MULTIPLE = 8  # of which the sides of whole images are made
WHOLE = slice(None), slice(None)


@dataclass(frozen=True)
class Geometry:
    """Settings of the geometric augmentation of one stream."""

    crop_size: int
    base_size: int
    scales: tuple[float, float] | None
    flip: bool
    rotate: bool
    blur: bool

    @classmethod
    def from_config(cls, stream: StreamConfig, scales: tuple[float, float]) -> "Geometry":
        on = stream.augment
        return cls(
            crop_size=stream.crop_size,
            base_size=stream.base_size,
            scales=scales if on and stream.scale else None,
            flip=on and stream.flip,
            rotate=on and stream.rotate,
            blur=on and stream.blur,
        )

    @property
    def largest_side(self) -> int:
        """Pixels of an image's longer side in the largest draw; 0 where images stay as they are."""
        return 0 if self.scales is None else int(self.base_size * self.scales[1])

    def shrunk(self, image: np.ndarray, masks: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """An image and its masks at the half, the quarter or the eighth of their size that the largest draw still fits
        into: photographs of many megapixels, of which no draw could use more.

        Parameters
        ----------
        image, masks
            As ``__call__`` takes them; but the image may have been shrunk by its decoder already.
        """
        factor = shrinking(image.shape[:2], self.largest_side)
        if factor > 1:
            image = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        return image, [resize_mask(mask, image.shape[:2]) for mask in masks]

    def __call__(
        self, image: np.ndarray, masks: list[np.ndarray], rng: np.random.Generator
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Augment one image.

        Parameters
        ----------
        image
            uint8 (H, W, 3).
        masks
            int16 (H, W) each; they go the way of the image, by nearest neighbour.

        Returns
        -------
        image, masks
            (crop_size, crop_size, 3) and (crop_size, crop_size).
        """
        size = self._scaled_size(image.shape[:2], self.scales, rng) if self.scales is not None else image.shape[:2]
        degrees = int(rng.integers(-MAX_ANGLE, MAX_ANGLE + 1)) if self.rotate else 0
        top, left = (int(rng.integers(0, max(0, side - self.crop_size) + 1)) for side in size)
        flip = self.flip and rng.random() < 0.5

        window = slice(top, top + self.crop_size), slice(left, left + self.crop_size)
        if degrees:
            image, masks = resize_image(image, size), [resize_mask(mask, size) for mask in masks]
            image, masks = _rotate(image, masks, degrees)
            image, masks = image[window], [mask[window] for mask in masks]
        else:
            image, masks = resize_image(image, size, window), [resize_mask(mask, size, window) for mask in masks]
        image = self._pad_and_flip(image, MEAN_COLOUR, flip)
        masks = [self._pad_and_flip(mask, IGNORE, flip) for mask in masks]
        if self.blur:
            sigma = rng.random() * MAX_BLUR_SIGMA
            kernel = int(3.3 * sigma) | 1
            image = cv2.GaussianBlur(image, (kernel, kernel), sigma or 1e-6)
        return image, masks

    def _scaled_size(
        self, size: tuple[int, int], scales: tuple[float, float], rng: np.random.Generator
    ) -> tuple[int, int]:
        low, high = (int(self.base_size * scale) for scale in scales)
        new, old = int(rng.integers(low, high + 1)), max(size)
        height, width = (max(1, (2 * new * side + old) // (2 * old)) for side in size)  # rounded half up
        return height, width

    def _pad_and_flip(self, pixels: np.ndarray, padding: tuple[int, ...] | int, flip: bool) -> np.ndarray:
        bottom, right = (self.crop_size - side for side in pixels.shape[:2])
        if bottom or right:
            pixels = cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=padding)
        return cv2.flip(pixels, 1) if flip else pixels


def pad_to_multiple(images: Tensor) -> Tensor:
    """Whole images (…, H, W) as the network takes them: reflected at the bottom and the right to multiples of 8.

    By index, so that sides may be shorter than what is added, and an exported network takes any size.
    """
    for axis in (-2, -1):
        side = images.shape[axis]
        at = torch.arange(side + -side % MULTIPLE, device=images.device)
        period = torch.full_like(at, 2 * (side - 1)).clamp(min=1)
        at = at % period
        images = images.index_select(axis, torch.minimum(at, period - at))
    return images


def resize_image(image: np.ndarray, size: tuple[int, int], window: tuple[slice, slice] = WHOLE) -> np.ndarray:
    """Scale an image as Pillow's antialiasing BICUBIC does (docs/method.md section 3), as far as a window reaches.

    Parameters
    ----------
    image
        uint8 (H, W, 3).
    size
        Height and width of the whole scaled image.
    window
        Its rows and columns that are wanted; of the rest only what lies to the left and towards the nearer end.

    Returns
    -------
    np.ndarray
        The window of the whole image, within two grey levels of Pillow's and nearly always equal to it.
    """
    if size == image.shape[:2]:
        return image[window]
    (top, bottom), (left, right) = (part.indices(side)[:2] for part, side in zip(window, size, strict=True))
    # What is scaled must begin with the image's first pixel, or else the result's pixels do not keep their places. The
    # filter is symmetric, so the image may be upside down, where the window is nearer to its end.
    upside_down = size[0] - top < bottom
    if upside_down:
        image, top, bottom = image[::-1], size[0] - bottom, size[0] - top
    sides, factors = zip(*map(_enough, image.shape[:2], size, (bottom, right)), strict=True)
    part = torch.from_numpy(image[None, : sides[0], : sides[1]].copy()).permute(0, 3, 1, 2)  # stored ones are read-only
    scaled = F.interpolate(part, scale_factor=factors, mode="bicubic", antialias=True)
    found = scaled[0].permute(1, 2, 0).numpy()[top:bottom, left:right]
    return found[::-1] if upside_down else found


def _enough(old: int, new: int, end: int) -> tuple[int, float]:
    """Along a side that is scaled from ``old`` to ``new`` pixels: how many of the ``old`` the first ``end`` of the
    ``new`` need, and the factor to scale by."""
    factor = new / old
    reach = BICUBIC_REACH * max(1, 1 / factor)
    needed = min(old, ceil(end / factor + reach) + 1)
    if new != old:
        factor += 1e-6 / old  # as PyTorch rounds the new size down
        if int(needed * factor) == needed:  # it would take the pixels as they are
            needed = old
    return needed, factor


def resize_mask(mask: np.ndarray, size: tuple[int, int], window: tuple[slice, slice] = WHOLE) -> np.ndarray:
    """Scale a mask (H, W) by nearest neighbour, but compute a window of the result only, as in ``resize_image``."""
    if size == mask.shape:
        return mask[window]
    # INTER_NEAREST takes the pixel above and left of the place and so shifts masks by half a pixel.
    exact = cv2.INTER_NEAREST_EXACT
    rows, columns = (nearest(old, new, exact)[part] for old, new, part in zip(mask.shape, size, window, strict=True))
    return mask.take(rows, axis=0).take(columns, axis=1)


@lru_cache(2)  # the masks of an image one after another
def nearest(old: int, new: int, method: int) -> np.ndarray:
    """Along a side that is scaled from ``old`` to ``new`` pixels, the pixel that each one comes from by one of OpenCV's
    methods: int32 (new,)."""
    return cv2.resize(np.arange(old, dtype=np.int32), (1, new), interpolation=method)[:, 0]


def _rotate(image: np.ndarray, masks: list[np.ndarray], degrees: int) -> tuple[np.ndarray, list[np.ndarray]]:
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    image = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_CUBIC, borderValue=MEAN_COLOUR)
    masks = [cv2.warpAffine(mask, turn, (width, height), flags=cv2.INTER_NEAREST, borderValue=IGNORE) for mask in masks]
    return image, masks
