"""Photographs of many more pixels than a draw can use are decoded and kept smaller; what is drawn hardly changes."""

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from dataloaders.geometry import Geometry
from dataloaders.images import read_sized, shrinking
from dataloaders.sets.description import Sample
from dataloaders.streams import UnlabelledStream
from tests.dataloaders.miniature import data_of, labelled_stream, write_mask
from utils.errors import UsageError

GEOMETRY = Geometry(crop_size=48, base_size=40, scales=(0.5, 2.0), flip=True, rotate=False, blur=False)  # 80 at most
PHOTOGRAPH = load_sample_image("china.jpg")[:424]  # 640 x 424, full of detail


def photograph(folder, suffix="jpg", exif=None):
    path = folder / f"photograph.{suffix}"
    Image.fromarray(PHOTOGRAPH).save(path, quality=92, **({"exif": exif} if exif else {}))
    return path


@pytest.mark.parametrize(
    ("size", "least_side", "factor"),
    [
        ((424, 640), 0, 1),
        ((424, 640), 321, 1),
        ((424, 640), 320, 2),
        ((640, 424), 161, 2),
        ((424, 640), 160, 4),
        ((424, 640), 1, 8),
        ((420, 640), 1, 4),
        ((427, 640), 1, 1),
    ],
)
def test_no_image_is_shrunk_below_the_largest_draw_or_with_a_remainder(size, least_side, factor):
    assert shrinking(size, least_side) == factor


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_jpeg_shrunk_by_its_decoder_is_the_photograph_and_has_its_size(tmp_path, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    path = photograph(tmp_path, exif=tags)
    whole, size = read_sized(path)
    small, same_size = read_sized(path, least_side=160)
    assert size == same_size == whole.shape[:2]
    assert max(small.shape) == 160
    expected = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(small - expected).mean() < 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_draws_of_a_large_photograph_hardly_change(tmp_path, suffix, monkeypatch):
    sample = Sample("a", photograph(tmp_path, suffix), write_mask(tmp_path / "mask.png", 1, (424, 640)))
    shrunk = labelled_stream([sample], GEOMETRY, cache_bytes=10**6)
    items = [shrunk[0, draw] for draw in range(6)]
    assert max(shrunk.cache.get(0)[0].shape) == 80
    monkeypatch.setattr(Geometry, "largest_side", 0)
    whole = labelled_stream([sample], GEOMETRY)
    for draw, item in enumerate(items):
        difference = np.abs(item["image"].numpy().astype(int) - whole[0, draw]["image"].numpy())
        assert difference.mean() < 4  # levels, where the draw is nearly as large as what is kept
        assert item["target"].equal(whole[0, draw]["target"])


def test_masks_are_shrunk_with_the_image(tmp_path):
    values = (np.arange(640) // 80 % 3).astype(np.uint8)[None].repeat(424, 0)
    sample = Sample("a", photograph(tmp_path), write_mask(tmp_path / "mask.png", values))
    stream = labelled_stream([sample], GEOMETRY, cache_bytes=10**6)
    stream[0, 0]
    image, (mask,) = stream.cache.get(0)
    assert image.shape[:2] == mask.shape == (53, 80)
    assert np.array_equal(mask, values[:53, 4::8])


def test_unlabelled_draws_do_not_depend_on_whether_masks_are_read(tmp_path):
    sample = Sample("a", photograph(tmp_path), write_mask(tmp_path / "mask.png", 0, (424, 640)))
    plain, judged = (UnlabelledStream(data_of(unlabelled=[sample]), GEOMETRY, seed=0, masks=on) for on in (False, True))
    assert plain[0, 3]["image"].equal(judged[0, 3]["image"])


def test_mask_that_is_larger_by_a_pixel_is_refused_all_the_same(tmp_path):
    sample = Sample("a", photograph(tmp_path), write_mask(tmp_path / "mask.png", 0, (425, 640)))
    with pytest.raises(UsageError, match="is 640 x 425 pixels, but its image .* is 640 x 424"):
        labelled_stream([sample], GEOMETRY)[0, 0]
