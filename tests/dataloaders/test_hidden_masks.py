"""Masks of unlabelled images, by which pseudo labels are judged: they go the way of the image and change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dataloaders.geometry import Geometry
from dataloaders.reading import IGNORE
from dataloaders.streams import UnlabelledStream
from tests.dataloaders.miniature import data_of, write_image, write_mask
from utils.errors import UsageError

GEOMETRY = Geometry(crop_size=64, base_size=96, scales=(0.5, 2.0), flip=True, rotate=True, blur=True)
GREYS = 100  # between two classes


def stream(samples, masks=True, **more):
    return UnlabelledStream(data_of(unlabelled=samples), GEOMETRY, masks=masks, seed=0, **more)


@pytest.fixture
def drawn(samples):
    """Samples whose images show the class of every pixel as its grey level, in blocks that tell all sides apart."""
    classes = np.zeros((40, 48), np.uint8)
    classes[:20, 16:] = 1
    classes[30:, :30] = 2
    for sample in samples:
        write_image(sample.image, np.repeat(classes[..., None] * GREYS, 3, axis=2))
        write_mask(sample.label, classes)
    return samples


def test_mask_goes_the_way_of_the_image(drawn):
    found = stream(drawn)
    for draw in range(20):
        item = found[0, draw]
        shown = item["image"].float().mean(0) / GREYS
        known = item["target"] != IGNORE  # the rest is padding, or what a rotation brings in
        assert known.float().mean() > 0.2
        # But for the edges, which scaling and blur smooth.
        assert ((shown - item["target"]).abs() < 0.3)[known].float().mean() > 0.8


@pytest.mark.parametrize("cache_bytes", [0, 10**6])
def test_nothing_else_of_an_item_depends_on_masks(samples, cache_bytes):
    with_masks, without = (stream(samples, masks, cache_bytes=cache_bytes) for masks in (True, False))
    for draw in range(12):
        item = with_masks[draw % 6, draw]
        target = item.pop("target")
        assert (target.shape, target.dtype) == (item["image"].shape[1:], torch.int16)
        other = without[draw % 6, draw]
        assert item.keys() == other.keys()
        assert all(np.array_equal(item[name], other[name]) for name in item)


def test_image_without_a_mask_has_no_known_pixel(samples):
    found = stream((replace(samples[0], label=None), *samples[1:]))
    assert (found[0, 0]["target"] == IGNORE).all()
    assert (found[1, 0]["target"] != IGNORE).any()


def test_judging_without_a_single_mask_is_refused(samples):
    with pytest.raises(UsageError, match="trainer.pseudo_label_quality: none of the 6 unlabelled images has a mask"):
        stream([replace(sample, label=None) for sample in samples])


@pytest.mark.parametrize("skip_bad", [False, True])
def test_mask_that_cannot_be_used_is_an_error_and_never_another_draw(samples, skip_bad):
    write_mask(samples[1].label, 0, (5, 5))
    samples[2].label.write_bytes(b"no image")
    found = stream(samples, skip_bad=skip_bad)
    with pytest.raises(UsageError, match=r"s1\.png: is 5 x 5 pixels, but its image .*pseudo_label_quality to false"):
        found[1, 0]
    with pytest.raises(UsageError, match=r"s2\.png: "):
        found[2, 0]
