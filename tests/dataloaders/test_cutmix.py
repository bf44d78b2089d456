import numpy as np
import pytest
import torch

from dataloaders.cutmix import cut_and_mix, draw_box


def drawn(count=3000, side=64, probability=1.0):
    rng = np.random.default_rng(0)
    return np.stack([draw_box(rng, probability, side) for _ in range(count)])


def test_boxes_are_inside_and_of_the_stated_areas_and_ratios():
    boxes = drawn()
    assert boxes.dtype == np.float32
    height, width = (boxes[:, 2:] - boxes[:, :2]).T
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (height * width).min() > 0.015
    assert (height * width).max() <= 0.4
    assert (height / width).min() > 0.25
    assert (height / width).max() < 4
    assert (height * width).mean() == pytest.approx(0.21, abs=0.02)
    assert np.allclose(boxes * 64, np.round(boxes * 64))


def test_a_view_has_a_box_with_the_probability_asked_for():
    assert (drawn(probability=0.3).any(1)).mean() == pytest.approx(0.3, abs=0.03)
    assert not drawn(50, probability=0.0).any()


@pytest.mark.parametrize(("parts", "mirror"), [(1, [3, 2, 1, 0]), (2, [1, 0, 3, 2])])
def test_box_shows_the_mirrored_crop_at_the_same_place(parts, mirror):
    values = torch.arange(4 * 2 * 8 * 8).view(8, 8, 8)  # four crops of two views
    boxes = torch.zeros(4, 2, 4)
    boxes[:, 1] = torch.tensor([0.25, 0.5, 0.75, 1.0])
    mixed = cut_and_mix(values, boxes, parts).view(4, 2, 8, 8)
    values = values.view(4, 2, 8, 8)
    assert torch.equal(mixed[:, 0], values[:, 0])
    assert torch.equal(mixed[:, 1, 2:6, 4:], values[mirror][:, 1, 2:6, 4:])
    assert torch.equal(mixed[:, 1, :2], values[:, 1, :2])
    assert torch.equal(mixed[:, 1, 2:6, :4], values[:, 1, 2:6, :4])


def test_maps_at_a_stride_are_mixed_where_the_middle_of_their_cells_is_in_the_box():
    image, boxes = torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 4)
    image[1] = 1
    boxes[0, 0] = torch.tensor([3, 5, 20, 31]) / 32
    fine, coarse = cut_and_mix(image, boxes), cut_and_mix(image[:, :, ::8, ::8], boxes)
    assert torch.equal(coarse, fine[:, :, 4::8, 4::8])
