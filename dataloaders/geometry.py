"""Random scale, pad, crop, flip of an image together with its masks (docs/method.md section 3)."""

from dataclasses import dataclass
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

        if size != image.shape[:2]:
            needed = size if degrees else (min(size[0], top + self.crop_size), min(size[1], left + self.crop_size))
            image = resize_image(image, size, needed)
            # INTER_NEAREST takes the pixel above and left of the place and so shifts masks by half a pixel.
            masks = [cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
        if degrees:
            image, masks = _rotate(image, masks, degrees)
        image = self._crop(image, top, left, MEAN_COLOUR, flip)
        masks = [self._crop(mask, top, left, IGNORE, flip) for mask in masks]
        if self.blur:
            sigma = rng.random() * MAX_BLUR_SIGMA
            kernel = int(3.3 * sigma) | 1
            image = cv2.GaussianBlur(image, (kernel, kernel), sigma or 1e-6)
        return image, masks

    def _scaled_size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        low, high = (int(self.base_size * scale) for scale in self.scales)
        ratio = int(rng.integers(low, high + 1)) / max(size)
        return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))

    def _crop(self, pixels: np.ndarray, top: int, left: int, padding: tuple[int, ...] | int, flip: bool) -> np.ndarray:
        """The crop at ``top``, ``left``, padded at the bottom and the right; contiguous."""
        pixels = pixels[top : top + self.crop_size, left : left + self.crop_size]
        bottom, right = (self.crop_size - side for side in pixels.shape[:2])
        pixels = cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=padding)
        return cv2.flip(pixels, 1) if flip else pixels


def resize_image(image: np.ndarray, size: tuple[int, int], needed: tuple[int, int]) -> np.ndarray:
    """Scale an image to ``size`` by bicubic interpolation, but compute its upper left part only.

    Parameters
    ----------
    image
        uint8 (H, W, 3).
    size
        Height and width of the whole scaled image.
    needed
        Height and width of its part that is needed.

    Returns
    -------
    np.ndarray
        At least the part that is needed, the pixels as in the whole scaled image. OpenCV rounds about one in a million
        of them to the next grey level.
    """
    height, width = image.shape[:2]
    down, right = size[0] / height, size[1] / width
    # Two pixels of the filter's margin; 32 more columns, as OpenCV rounds otherwise at the end of a row.
    rows = min(height, ceil(needed[0] / down) + 3)
    columns = min(width, ceil((needed[1] + 32) / right) + 3)
    # A scale that is no ratio of whole sizes is slower, and a part that keeps its size would be copied.
    if 2 * rows * columns > height * width or (round(rows * down), round(columns * right)) == (rows, columns):
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.resize(image[:rows, :columns], None, fx=right, fy=down, interpolation=cv2.INTER_CUBIC)


def _rotate(image: np.ndarray, masks: list[np.ndarray], degrees: int) -> tuple[np.ndarray, list[np.ndarray]]:
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    image = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_CUBIC, borderValue=MEAN_COLOUR)
    masks = [cv2.warpAffine(mask, turn, (width, height), flags=cv2.INTER_NEAREST, borderValue=IGNORE) for mask in masks]
    return image, masks
