"""Decoded images and masks of a training stream, kept in memory that its data-loading processes share."""

import math
import mmap
import multiprocessing

import numpy as np

from utils.logger import log

_ALIGNMENT = 64
_HEIGHT = 1  # column of the table, whose rows are offset, height and width; 0: not kept


class SharedCache:
    """An image and its masks for each sample, those that come first, as long as there is room.

    Worker processes that are forked after the cache was made share its memory with this process. Workers that are
    started in another way (spawned) get a cache of their own with a limit of 0, which keeps nothing.

    Parameters
    ----------
    n_samples
        Samples of the stream.
    n_masks
        Masks that a sample has.
    limit
        Bytes that may be kept, of which only those in use take memory. Nothing is kept where it is 0, or where the
        system does not grant so much.
    """

    def __init__(self, n_samples: int, n_masks: int, limit: int):
        self.n_masks, self.limit = n_masks, limit
        if limit <= 0:
            return
        try:
            self._lock = multiprocessing.Lock()
            self._memory = mmap.mmap(-1, limit)
            self._table = np.frombuffer(mmap.mmap(-1, 24 * (n_samples + 1)), np.int64).reshape(-1, 3)
        except OSError as error:
            log.warning(
                f"data.cache_gb: no {limit / 1e9:.3g} GB can be shared here ({error.strerror}); every draw is decoded"
            )
            self.limit = 0
            return
        self._used = self._table[-1, :1]  # bytes of the memory; the rows before are the samples'

    def __reduce__(self) -> tuple:
        return SharedCache, (0, self.n_masks, 0)

    def get(self, index: int) -> tuple[np.ndarray, list[np.ndarray]] | None:
        """Image uint8 (H, W, 3) and masks int16 (H, W) of a sample, read-only; None if they are not kept."""
        if self.limit <= 0:
            return None
        with self._lock:
            row = self._table[index].tolist()
        return self._arrays(row) if row[_HEIGHT] else None

    def put(self, index: int, image: np.ndarray, masks: list[np.ndarray]) -> None:
        """Keep a sample's arrays, if there is room."""
        if self.limit <= 0:
            return
        height, width = image.shape[:2]
        size = math.ceil(height * width * (3 + 2 * self.n_masks) / _ALIGNMENT) * _ALIGNMENT
        with self._lock:
            offset = int(self._used[0])
            if self._table[index, _HEIGHT] or offset + size > self.limit:
                return
            row = [offset, height, width]
            kept, kept_masks = self._arrays(row, writeable=True)
            kept[:] = image
            for place, mask in zip(kept_masks, masks, strict=True):
                place[:] = mask
            self._table[index] = row
            self._used[0] += size

    def _arrays(self, row: list[int], writeable: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
        offset, height, width = row
        n = height * width
        image = np.frombuffer(self._memory, np.uint8, 3 * n, offset + 2 * n * self.n_masks).reshape(height, width, 3)
        masks = np.frombuffer(self._memory, np.int16, n * self.n_masks, offset).reshape(self.n_masks, height, width)
        image.flags.writeable = masks.flags.writeable = writeable
        return image, list(masks)
