"""Features to cluster: made ones of three kinds, and real ones from files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Kind(NamedTuple):
    """How features are spread: modes, the parameter of the Dirichlet distribution of their shares (small: uneven; None:
    even), directions that vary together within a mode, and the spread of each dimension by itself."""

    modes: int
    concentration: float | None
    latent: int
    noise: float


KINDS = {
    "uneven modes": Kind(40, 0.7, 24, 0.2),
    "few modes": Kind(4, 0.7, 48, 0.1),
    "even, uncorrelated": Kind(400, None, 0, 0.5),
}


def make_features(n: int, d: int = 256, kind: str = "uneven modes", seed: int = 0) -> np.ndarray:
    """(n, d) float16, non-negative like a decoder's features, of one of ``KINDS``."""
    modes, concentration, latent, noise = KINDS[kind]
    rng = np.random.default_rng(seed)
    shares = None if concentration is None else rng.dirichlet(np.full(modes, concentration))
    centers = rng.gamma(0.5, 1.0, (modes, d))
    spread = 0.25 * rng.normal(size=(modes, latent, d))
    features = np.empty((n, d), np.float16)
    for start in range(0, n, 8192):
        mode = rng.choice(modes, min(8192, n - start), p=shares)
        block = centers[mode] + noise * rng.normal(size=(len(mode), d))
        together = rng.normal(size=(len(mode), latent))
        for one in np.unique(mode):
            block[mode == one] += together[mode == one] @ spread[one]
        features[start : start + len(mode)] = np.maximum(block, 0)
    return features


def read_features(folder: Path) -> np.ndarray:
    """(n, c) float16: every position of every .npy file of shape (c, h, w) below ``folder``; others are passed over."""
    maps = [np.load(file, mmap_mode="r") for file in sorted(folder.rglob("*.npy"))]
    maps = [array for array in maps if array.ndim == 3]
    if not maps:
        raise SystemExit(f"{folder}: no .npy files of shape (256, h, w)")
    return np.concatenate([array.reshape(len(array), -1).T for array in maps]).astype(np.float16, copy=False)
