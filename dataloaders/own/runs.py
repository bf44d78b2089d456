"""A mask as runs of equal values, row after row: masks have few of them, so they are cheap to sort, keep and map."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dataloaders.mask_file import MaskFile

TRANSPARENT = -1
"""The value, or colour, of pixels with alpha 0, whatever colour they hide."""
_SOFT = 4  # levels of alpha, beyond which edges are smoothed
_KEPT = 16  # pixels a run from which on runs are kept: they take less than the mask's own file mostly does


@dataclass(frozen=True)
class Runs:
    """A mask, row after row.

    Attributes
    ----------
    values
        int32 (n,), the values in their order, or the colours of a picture in colours, 0xRRGGBB; ``TRANSPARENT`` where
        alpha hides them.
    places
        (R,), the place of each run's value among ``values``.
    lengths
        int32 (R,), pixels.
    size
        (H, W).
    """

    values: np.ndarray
    places: np.ndarray
    lengths: np.ndarray
    size: tuple[int, int]

    def counts(self) -> np.ndarray:
        """Pixels of every value, int64 (n,)."""
        return np.bincount(self.places, self.lengths, len(self.values)).astype(np.int64)

    def drawn(self, numbers: np.ndarray | None = None) -> np.ndarray:
        """(H, W), the number of each pixel's value, or its place among the values."""
        of_runs = self.places if numbers is None else numbers[self.places]
        return np.repeat(of_runs, self.lengths).reshape(self.size)

    def save(self, path: Path) -> bool:
        """Write the runs, unless they are so many that the mask itself is read as fast; whether they are written."""
        if len(self.lengths) * _KEPT > self.size[0] * self.size[1]:
            return False
        np.savez(path, values=self.values, places=self.places, lengths=self.lengths, size=self.size)
        return True

    @classmethod
    def load(cls, path: Path) -> "Runs":
        """What ``save`` wrote."""
        with np.load(path) as file:
            height, width = file["size"].tolist()
            return cls(file["values"], file["places"], file["lengths"], (height, width))


def runs_of(file: MaskFile) -> Runs:
    """The runs of a mask, whose half-transparent pixels count as opaque unless its edges are smoothed."""
    hidden = None if file.alpha is None else file.alpha < (128 if is_soft(file) else 1)
    if file.values.ndim == 3:  # packed into one number a pixel, blue first, so that the order is that of 0xRRGGBB
        packed = cv2.cvtColor(np.ascontiguousarray(file.values), cv2.COLOR_RGB2BGRA)
        if hidden is not None:
            packed[hidden] = 0
        flat = packed.view("<u4").ravel()
    else:
        flat = file.values.ravel()
        if hidden is not None:
            flat = np.where(hidden.ravel(), TRANSPARENT, flat.astype(np.int32))
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    raw, places = np.unique(flat[starts], return_inverse=True)
    values = raw.astype(np.int32)
    if file.values.ndim == 3:
        values = np.where(raw >> 24, (raw & 0xFFFFFF).astype(np.int32), TRANSPARENT)
    kind = np.uint8 if len(values) <= 256 else np.uint16 if len(values) <= 65536 else np.uint32
    lengths = np.diff(starts, append=flat.size).astype(np.int32)
    return Runs(values, places.astype(kind), lengths, file.values.shape[:2])


def is_soft(file: MaskFile) -> bool:
    """Whether the mask's alpha has many levels, as smoothed edges do."""
    return file.alpha is not None and np.count_nonzero(np.bincount(file.alpha.ravel(), minlength=256)[1:]) > _SOFT


def solid_pixels(drawn: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pixels of every value number of ``drawn``, (H, W), whose eight neighbours have the same; int64 (n,)."""
    window = np.ones((3, 3), np.uint8)
    differs = cv2.erode(drawn, window) != cv2.dilate(drawn, window)
    return counts - np.bincount(drawn[differs], minlength=len(counts))


def pixels_on_lines(drawn: np.ndarray, top: int) -> int:
    """Pixels of value number ``top`` that have two other values within a few pixels, 1 % of the long side."""
    reach = max(3, round(0.01 * max(drawn.shape)))
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    is_top, others = drawn == top, drawn.astype(np.uint16)
    low = cv2.erode(np.where(is_top, np.uint16(65535), others), window)
    high = cv2.dilate(np.where(is_top, np.uint16(0), others + 1), window)
    return int(np.count_nonzero(is_top & (high > low + 1) & (low < 65535)))
