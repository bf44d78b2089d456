"""Class logits of an image of any size, from one window or from many, in rows that are done as it goes."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

Logits = Callable[[np.ndarray], Tensor]
"""Logits of a crop: uint8 (h, w, 3) → float32 (C, h, w)."""


def logits_in_rows(
    image: np.ndarray, logits: Logits, window: int | None = None, overlap: float = 0.25
) -> Iterator[tuple[slice, Tensor]]:
    """The logits of an image from top to bottom, a band of rows after the other.

    Where windows overlap their logits are averaged, each weighted by the distance to the window's edge, so that one
    fades into the next. Only the rows that a row of windows covers are in memory: C x window x W values, twice.

    Parameters
    ----------
    image
        uint8 (H, W, 3).
    logits
        The network; called for one window at a time.
    window
        Side of the square windows in pixels; None, or a side that no side of the image exceeds: the whole image.
    overlap
        The part of a window's side, at least, that it shares with the next.

    Yields
    ------
    rows, logits
        The rows of the image, and theirs: (C, rows, W).
    """
    height, width = image.shape[:2]
    if window is None or max(height, width) <= window:
        yield slice(0, height), logits(image)
        return
    row_windows, column_windows = (_windows(side, window, overlap) for side in (height, width))
    next_tops = [top for top, _ in row_windows[1:]] + [height]
    unfinished: Tensor | None = None
    for (top, row_weights), next_top in zip(row_windows, next_tops, strict=True):
        bottom, band = top + len(row_weights), torch.zeros(0)
        for left, column_weights in column_windows:
            right = left + len(column_weights)
            part = logits(image[top:bottom, left:right])
            if not len(band):  # the classes are known, and the device
                band = part.new_zeros(len(part), bottom - top, width)
            weights = row_weights[:, None] * column_weights
            band[:, :, left:right] += part * weights.to(part.device)
        if unfinished is not None:
            band[:, : unfinished.shape[1]] += unfinished
        yield slice(top, next_top), band[:, : next_top - top]
        unfinished = band[:, next_top - top :].clone()  # a copy, so that the band itself is freed


def _windows(side: int, window: int, overlap: float) -> list[tuple[int, Tensor]]:
    """Where windows start along a side, evenly spread, and their weights, which add up to 1 at every pixel."""
    window = min(side, window)
    stride = max(1, int(window * (1 - overlap)))
    count = 1 + -(-(side - window) // stride)
    starts = [round(start) for start in np.linspace(0, side - window, count)]
    distance = torch.arange(1, window + 1).minimum(torch.arange(window, 0, -1)).float()
    total = torch.zeros(side)
    for start in starts:
        total[start : start + window] += distance
    return [(start, distance / total[start : start + window]) for start in starts]
