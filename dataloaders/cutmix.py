"""CutMix inside a batch (French et al., 2020): a box of each strong view shows the same place of another crop."""

import numpy as np
from torch import Tensor, arange

AREAS = (0.02, 0.4)  # of a box, in parts of the crop's
RATIOS = (0.3, 1 / 0.3)  # height / width


def draw_box(rng: np.random.Generator, probability: float, side: int) -> np.ndarray:
    """A box of whole pixels in a square crop: top, left, bottom, right in parts of the side, float32 (4,); zeros where
    there is none. Area, ratio and place are uniform; ratio and place are drawn again until the box fits."""
    if rng.random() >= probability:
        return np.zeros(4, np.float32)
    area = rng.uniform(*AREAS) * side**2
    while True:
        ratio = rng.uniform(*RATIOS)
        size = np.array([int(np.sqrt(area * ratio)), int(np.sqrt(area / ratio))])
        corner = rng.integers(0, side, 2)
        if (corner + size <= side).all():
            return (np.concatenate([corner, corner + size]) / side).astype(np.float32)


def cut_and_mix(values: Tensor, boxes: Tensor, parts: int = 1) -> Tensor:
    """Put into the boxes what the crop at the mirrored position of the batch has there.

    Parameters
    ----------
    values
        V views of each of N crops, one crop's after another's: (N V, …, H, W), at any stride.
    boxes
        (N, V, 4) of ``draw_box``.
    parts
        The batch is mirrored in so many equal parts, each by itself.
    """
    n_views, (height, width) = boxes.shape[1], values.shape[-2:]
    mirrored = values.unflatten(0, (parts, -1, n_views)).flip(1).flatten(0, 2)
    rows, columns = ((arange(size, device=values.device) + 0.5) / size for size in (height, width))
    top, left, bottom, right = boxes.flatten(0, 1).unsqueeze(1).unbind(2)  # (N V, 1)
    inside = ((rows > top) & (rows < bottom)).unsqueeze(2) & ((columns > left) & (columns < right)).unsqueeze(1)
    return mirrored.where(inside.view(len(values), *[1] * (values.ndim - 3), height, width), values)
