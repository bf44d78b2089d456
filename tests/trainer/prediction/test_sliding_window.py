"""The sliding window against the whole image, and what it keeps in memory."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.prediction.sliding_window import logits_in_rows


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def by_pixel(crop: np.ndarray) -> torch.Tensor:
    """Logits that depend on the pixel alone."""
    return torch.from_numpy(crop.astype(np.float32)).permute(2, 0, 1) / 255


def by_neighbourhood(crop: np.ndarray) -> torch.Tensor:
    """Logits of an 11 x 11 neighbourhood, beyond the crop's edge zero."""
    return torch.nn.functional.avg_pool2d(by_pixel(crop), 11, stride=1, padding=5)


def joined(image: np.ndarray, logits, window: int | None, overlap: float = 0.25) -> torch.Tensor:
    """The bands as one, which must follow each other without a gap."""
    bands, at = [], 0
    for rows, band in logits_in_rows(image, logits, window, overlap):
        assert (rows.start, rows.stop - rows.start) == (at, band.shape[1])
        bands.append(band)
        at = rows.stop
    assert at == len(image)
    return torch.cat(bands, dim=1)


@pytest.mark.parametrize("window", [None, 64, 100])
def test_image_within_the_window_goes_through_the_network_whole(window):
    image, seen = picture(50, 64), []
    logits = joined(image, lambda crop: seen.append(crop.shape) or by_neighbourhood(crop), window)
    assert seen == [(50, 64, 3)]
    assert torch.equal(logits, by_neighbourhood(image))


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("height", "width"), [(33, 33), (64, 32), (32, 100), (101, 47), (7, 90), (65, 3)])
def test_weights_of_all_windows_add_up_to_one_everywhere(height, width, overlap):
    image = picture(height, width)
    torch.testing.assert_close(joined(image, by_pixel, 32, overlap), by_pixel(image))


@pytest.mark.parametrize(("overlap", "least"), [(0, 0), (0.25, 8), (0.5, 16), (0.9, 28)])
def test_windows_are_whole_and_share_at_least_the_overlap(overlap, least):
    rows, columns = np.mgrid[:101, :47].astype(np.uint8)
    corners, shapes = set(), set()

    def note(crop):
        corners.add(tuple(crop[0, 0, :2].tolist()))
        shapes.add(crop.shape)
        return by_pixel(crop)

    joined(np.stack([rows, columns, rows], axis=-1), note, 32, overlap)
    assert shapes == {(32, 32, 3)}
    for axis, last in ((0, 101 - 32), (1, 47 - 32)):
        starts = sorted({corner[axis] for corner in corners})
        assert (starts[0], starts[-1]) == (0, last)
        assert 32 - max(np.diff(starts)) >= least


def test_windows_agree_with_the_whole_image_where_they_see_enough_of_it():
    image = picture(150, 170)
    whole, windows = by_neighbourhood(image), joined(image, by_neighbourhood, 64, 0.5)
    assert (whole - windows).abs().max() < 0.1
    assert (whole.argmax(0) == windows.argmax(0)).float().mean() > 0.97


def test_one_window_fades_into_the_next():
    values = iter([0.0, 1.0] * 100)
    logits = joined(picture(200, 200), lambda crop: torch.full((1, *crop.shape[:2]), next(values)), 64, 0.5)
    assert logits.min() < 0.05
    assert logits.max() > 0.95
    for axis in (1, 2):
        assert logits.diff(dim=axis).abs().max() < 2 / 32  # an overlap is 32 pixels or more


class LargestTensor(TorchDispatchMode):
    """The number of values of the largest tensor that any operation gave."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_no_tensor_grows_with_the_height_of_the_image():
    image = picture(2000, 80)
    with LargestTensor() as largest:
        for _, _ in logits_in_rows(image, by_pixel, 32, 0.5):
            pass
    assert largest.values == 3 * 32 * 80
