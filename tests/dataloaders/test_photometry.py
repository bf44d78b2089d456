from itertools import permutations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional

from dataloaders.photometry import (
    apply_photometry,
    draw_photometry,
    gaussian_blur,
    in_groups,
    normalise,
    one_by_one,
    to_unit,
)  # fmt: skip

OPERATIONS = (
    functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation, functional.adjust_hue,
)  # fmt: skip
NO_CHANGE = (1.0, 1.0, 1.0, 0.0)
TOLERANCE = {"atol": 1e-4, "rtol": 0}


def images(n=3, height=13, width=17, seed=0) -> Tensor:
    """Colours of every saturation, with gray, black, white and pure ones among them."""
    x = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))
    x[:, :, 0] = x[:, :1, 0]
    for column, colour in enumerate(((0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1))):
        x[:, :, 1, column] = torch.tensor(colour)
    return x


def parameters(*, blur=0, jitter=0, grayscale=0, order=0, factors=NO_CHANGE, sigma=0.0) -> Tensor:
    return torch.tensor([blur, jitter, grayscale, order, *factors, sigma], dtype=torch.float32)


def apply_one(x: Tensor, **what) -> Tensor:
    return apply_photometry(x, parameters(**what).repeat(len(x), 1))


def by_torchvision(x: Tensor, order: tuple[int, ...], factors: tuple[float, ...]) -> Tensor:
    for operation in order:
        x = OPERATIONS[operation](x, factors[operation])
    return x


@pytest.mark.parametrize(
    ("operation", "factor"),
    [(0, 0.6), (0, 1.4), (1, 0.6), (1, 1.4), (2, 0.6), (2, 1.4), (3, -0.1), (3, 0.1), (3, 0.037), (2, 1.0)],
)
def test_each_operation_is_torchvisions(operation, factor):
    factors = list(NO_CHANGE)
    factors[operation] = factor
    x = images()
    expected = OPERATIONS[operation](x, factor)
    torch.testing.assert_close(apply_one(x, jitter=1, factors=tuple(factors)), expected, **TOLERANCE)
    if factor != 1:
        assert not torch.allclose(expected, x, **TOLERANCE)


def test_grayscale_is_torchvisions():
    x = images()
    expected = functional.rgb_to_grayscale(x, num_output_channels=3)
    torch.testing.assert_close(apply_one(x, grayscale=1), expected, atol=1.1e-4, rtol=0)  # it has 0.2989 for 0.299


@pytest.mark.parametrize("size", [(13, 17), (3, 3), (5, 40)])
def test_blur_is_opencvs_for_a_kernel_of_five_without_a_sigma(size):
    x = images(2, *size) if size[0] > 5 else torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = [cv2.GaussianBlur(image.permute(1, 2, 0).numpy(), (5, 5), 0) for image in x]
    expected = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2)
    torch.testing.assert_close(gaussian_blur(x), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(apply_one(x, blur=1), expected, **TOLERANCE)


def test_the_24_orders_are_the_24_permutations_of_the_four_operations():
    factors = (1.4, 0.6, 1.4, 0.1)
    x = images(1)
    expected = {order: by_torchvision(x, order, factors) for order in permutations(range(4))}
    found = []
    for number in range(24):
        result = apply_one(x, jitter=1, order=number, factors=factors)
        found += [order for order, image in expected.items() if torch.allclose(result, image, atol=1e-4, rtol=0)]
    assert len(found) == 24
    assert set(found) == set(expected)


def test_blur_comes_first_and_grayscale_last():
    x, factors = images(1), (1.4, 1.4, 1.4, 0.1)
    result = apply_one(x, blur=1, jitter=1, grayscale=1, factors=factors)
    jittered = apply_one(gaussian_blur(x), jitter=1, factors=factors)
    torch.testing.assert_close(result, apply_one(jittered, grayscale=1), **TOLERANCE)


def test_every_image_of_a_batch_goes_by_its_own_parameters():
    rng = np.random.default_rng(0)
    x = images(24)
    drawn = torch.from_numpy(np.stack([draw_photometry(rng, strong=True) for _ in range(24)]))
    assert drawn[:, :3].mean(0).min() > 0
    batch = apply_photometry(x, drawn)
    for number in range(24):
        alone = apply_photometry(x[number : number + 1], drawn[number : number + 1])
        torch.testing.assert_close(batch[number : number + 1], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("unimatch", [False, True])
def test_the_way_of_a_gpu_gives_the_same(unimatch):
    rng = np.random.default_rng(0)
    x = images(24)
    drawn = torch.from_numpy(np.stack([draw_photometry(rng, strong=True, unimatch=unimatch) for _ in range(24)]))
    before = x.clone()
    torch.testing.assert_close(in_groups(x, drawn), one_by_one(x, drawn), atol=1e-6, rtol=0)
    assert torch.equal(x, before)


def test_image_without_any_operation_stays_as_it_is():
    x = images(2)
    both = torch.stack([parameters(factors=(1.4, 1.4, 1.4, 0.1)), parameters(jitter=1, factors=(1.4, 1.4, 1.4, 0.1))])
    result = apply_photometry(x, both)
    assert torch.equal(result[0], x[0])
    assert not torch.allclose(result[1], x[1], atol=0.05)


def test_weak_view_is_untouched_by_making_the_strong_one():
    x = images()
    before = x.clone()
    apply_one(x, blur=1, jitter=1, grayscale=1, factors=(1.4, 0.6, 1.4, 0.1))
    assert torch.equal(x, before)


def test_result_stays_between_zero_and_one():
    for number in range(24):
        result = apply_one(images(), blur=1, jitter=1, order=number, factors=(1.4, 1.4, 1.4, 0.1))
        assert result.min() >= 0
        assert result.max() <= 1


def test_strong_view_is_drawn_with_the_methods_probabilities_and_ranges():
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_photometry(rng, strong=True) for _ in range(4000)])
    assert drawn[:, :3].mean(0) == pytest.approx([0.5, 0.8, 0.2], abs=0.03)
    assert set(np.unique(drawn[:, :3])) == {0, 1}
    together = (drawn[:, 0] * drawn[:, 1] * drawn[:, 2]).mean()
    assert together == pytest.approx(0.5 * 0.8 * 0.2, abs=0.02)  # drawn apart from one another
    assert np.bincount(drawn[:, 3].astype(int), minlength=24) == pytest.approx(4000 / 24, rel=0.35)
    assert drawn[:, 4:8].min(0) == pytest.approx([0.6, 0.6, 0.6, -0.1], abs=0.005)
    assert drawn[:, 4:8].max(0) == pytest.approx([1.4, 1.4, 1.4, 0.1], abs=0.005)
    assert drawn[:, 4:8].mean(0) == pytest.approx([1, 1, 1, 0], abs=0.02)
    assert not drawn[:, 8].any()


def test_unimatchs_strong_view_is_drawn_with_its_authors_probabilities_and_ranges():
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_photometry(rng, strong=True, unimatch=True) for _ in range(4000)])
    sigmas = drawn[:, 8]
    assert not drawn[:, 0].any()
    assert (sigmas > 0).mean() == pytest.approx(0.5, abs=0.03)
    assert sigmas[sigmas > 0].min() == pytest.approx(0.1, abs=0.01)
    assert sigmas.max() == pytest.approx(2, abs=0.01)
    assert drawn[:, 1:3].mean(0) == pytest.approx([0.8, 0.2], abs=0.03)
    assert drawn[:, 4:8].min(0) == pytest.approx([0.5, 0.5, 0.5, -0.25], abs=0.005)
    assert drawn[:, 4:8].max(0) == pytest.approx([1.5, 1.5, 1.5, 0.25], abs=0.005)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_unimatchs_blur_is_a_gaussian_and_comes_after_grayscale(sigma):
    x, factors = images(2, 20, 24), (1.4, 1.4, 1.4, 0.1)
    result = apply_one(x, jitter=1, grayscale=1, factors=factors, sigma=sigma)
    gray = apply_one(x, jitter=1, grayscale=1, factors=factors)
    torch.testing.assert_close(result, functional.gaussian_blur(gray, [13, 13], [sigma, sigma]), atol=2e-3, rtol=0)


def test_jitter_of_the_labelled_stream_is_always_on_and_comes_alone():
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_photometry(rng, strong=False) for _ in range(300)])
    assert (drawn[:, :3] == (0, 1, 0)).all()
    assert len(set(drawn[:, 3])) == 24


def test_images_are_normalised_as_imagenets():
    x = torch.tensor([[[[0]], [[255]], [[51]]]], dtype=torch.uint8)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert normalise(to_unit(x)).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert x.flatten().tolist() == [0, 255, 51]
