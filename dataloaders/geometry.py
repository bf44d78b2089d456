"""Random scale, pad, crop, flip of an image together with its masks (docs/method.md section 3)."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import cv2
import numpy as np

from dataloaders.reading import IGNORE
from utils.config import StreamConfig

MEAN_COLOUR = (124, 116, 104)  # the normalisation mean (dataloaders/photometry.py) in 8 bit
LABELLED_SCALES = (0.5, 2.0)
UNLABELLED_SCALES = (0.8, 2.0)
MAX_ANGLE = 10
MAX_BLUR_SIGMA = 1.5
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
        size = self._scaled_size(image.shape[:2], rng) if self.scales is not None else image.shape[:2]
        degrees = int(rng.integers(-MAX_ANGLE, MAX_ANGLE + 1)) if self.rotate else 0
        top, left = (int(rng.integers(0, max(0, side - self.crop_size) + 1)) for side in size)
        flip = self.flip and rng.random() < 0.5

        window = tuple(slice(at, at + self.crop_size) for at in (top, left))
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

    def _scaled_size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        low, high = (int(self.base_size * scale) for scale in self.scales)
        ratio = int(rng.integers(low, high + 1)) / max(size)
        return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))

    def _pad_and_flip(self, pixels: np.ndarray, padding: tuple[int, ...] | int, flip: bool) -> np.ndarray:
        bottom, right = (self.crop_size - side for side in pixels.shape[:2])
        if bottom or right:
            pixels = cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=padding)
        return cv2.flip(pixels, 1) if flip else pixels


def resize_image(image: np.ndarray, size: tuple[int, int], window: tuple[slice, slice] = WHOLE) -> np.ndarray:
    """Scale an image by bicubic interpolation, but not what lies below and to the right of a window in the result.

    Parameters
    ----------
    image
        uint8 (H, W, 3).
    size
        Height and width of the whole scaled image.
    window
        Its rows and columns that are wanted.

    Returns
    -------
    np.ndarray
        The window, as ``cv2.resize`` of the whole image has it, but for about one value in a million, which it rounds
        to the next grey level.
    """
    height, width = image.shape[:2]
    if size == (height, width):
        return image[window]
    bottom, right = (part.indices(side)[1] for part, side in zip(window, size, strict=True))
    scale_y, scale_x = size[0] / height, size[1] / width
    # The filter reaches two pixels further; 32 more columns, as OpenCV rounds otherwise at the end of a row.
    rows = min(height, ceil(bottom / scale_y) + 3)
    columns = min(width, ceil((right + 32) / scale_x) + 3)
    # OpenCV is slower at scales that are no ratio of whole sizes, and copies a part that would keep its size.
    if 2 * rows * columns > height * width or (round(rows * scale_y), round(columns * scale_x)) == (rows, columns):
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)[window]
    part = image[:rows, :columns]
    return cv2.resize(part, None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_CUBIC)[window]


def resize_mask(mask: np.ndarray, size: tuple[int, int], window: tuple[slice, slice] = WHOLE) -> np.ndarray:
    """Scale a mask (H, W) by nearest neighbour, but compute a window of the result only, as in ``resize_image``."""
    if size == mask.shape:
        return mask[window]
    rows, columns = (_nearest(old, new)[part] for old, new, part in zip(mask.shape, size, window, strict=True))
    return mask.take(rows, axis=0).take(columns, axis=1)


@lru_cache(2)  # the masks of an image one after another
def _nearest(old: int, new: int) -> np.ndarray:
    """Along a side that is scaled from ``old`` to ``new`` pixels, the pixel that each one comes from."""
    # INTER_NEAREST takes the pixel above and left of the place and so shifts masks by half a pixel.
    return cv2.resize(np.arange(old, dtype=np.int32), (1, new), interpolation=cv2.INTER_NEAREST_EXACT)[:, 0]


def _rotate(image: np.ndarray, masks: list[np.ndarray], degrees: int) -> tuple[np.ndarray, list[np.ndarray]]:
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    image = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_CUBIC, borderValue=MEAN_COLOUR)
    masks = [cv2.warpAffine(mask, turn, (width, height), flags=cv2.INTER_NEAREST, borderValue=IGNORE) for mask in masks]
    return image, masks
