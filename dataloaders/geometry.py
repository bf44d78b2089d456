"""Random scale, pad, crop, flip of an image together with its masks (docs/method.md section 3)."""

from dataclasses import dataclass

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
        if self.scales is not None:
            image, masks = self._scale(image, masks, rng)
        if self.rotate:
            image, masks = _rotate(image, masks, int(rng.integers(-MAX_ANGLE, MAX_ANGLE + 1)))
        image, masks = self._crop(image, masks, rng)
        if self.flip and rng.random() < 0.5:
            image, masks = image[:, ::-1], [mask[:, ::-1] for mask in masks]
        if self.blur:
            sigma = rng.random() * MAX_BLUR_SIGMA
            kernel = int(3.3 * sigma) | 1
            image = cv2.GaussianBlur(np.ascontiguousarray(image), (kernel, kernel), sigma or 1e-6)
        return np.ascontiguousarray(image), [np.ascontiguousarray(mask) for mask in masks]

    def _scale(self, image, masks, rng):
        low, high = (int(self.base_size * scale) for scale in self.scales)
        long_side = int(rng.integers(low, high + 1))
        height, width = image.shape[:2]
        ratio = long_side / max(height, width)
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        # INTER_NEAREST takes the pixel above and left of the place and so shifts masks by half a pixel.
        return image, [cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]

    def _crop(self, image, masks, rng):
        crop = self.crop_size
        bottom, right = (max(0, crop - side) for side in image.shape[:2])
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=MEAN_COLOUR)
            masks = [cv2.copyMakeBorder(mask, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=IGNORE) for mask in masks]
        top = int(rng.integers(0, image.shape[0] - crop + 1))
        left = int(rng.integers(0, image.shape[1] - crop + 1))
        window = slice(top, top + crop), slice(left, left + crop)
        return image[window], [mask[window] for mask in masks]


def _rotate(image: np.ndarray, masks: list[np.ndarray], degrees: int) -> tuple[np.ndarray, list[np.ndarray]]:
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    image = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_CUBIC, borderValue=MEAN_COLOUR)
    masks = [cv2.warpAffine(mask, turn, (width, height), flags=cv2.INTER_NEAREST, borderValue=IGNORE) for mask in masks]
    return image, masks
