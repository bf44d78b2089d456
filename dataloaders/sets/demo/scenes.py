"""Draw one scene of the demo data set: an image of natural textures and shapes, and its class mask.

A scene is a background (layers of sky, water, foliage, ground ...), objects of seven classes in random order
of depth, and the conditions of a photograph (light, colour temperature, exposure, blur, noise). Everything
that sets how hard the task is stands in :mod:`dataloaders.sets.demo.recipe`.
"""

from functools import cache

import cv2
import numpy as np
from sklearn.datasets import load_sample_image

from dataloaders.sets.demo.recipe import DIFFICULTY, MATERIALS, NOMINAL, OBJECTS, REGIONS, Material


def draw_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene of about ``size`` pixels a side.

    Returns
    -------
    image
        uint8 ``(H, W, 3)``, RGB.
    mask
        uint8 ``(H, W)``, 0 for background and ``1 + i`` for ``OBJECTS[i]``.
    """
    low, high = DIFFICULTY.size_range
    height, width = (int(round(size * f)) for f in rng.uniform(low, high, 2))
    scale = size / NOMINAL
    light = _unit_vector(rng.uniform(0, 2 * np.pi))

    image = _background(rng, height, width, scale)
    mask = np.zeros((height, width), np.uint8)
    for index in _depth_order(rng):
        _place_object(rng, image, mask, index, scale, light)
    return _photograph(rng, image, light), mask


# --- textures --------------------------------------------------------------------------------------------


@cache
def _region(name: str) -> np.ndarray:
    """A box of a sample photograph: float32 ``(h, w, 3)`` RGB in 0..1, with mean 0 in each channel."""
    photo, left, top, right, bottom = REGIONS[name]
    pixels = load_sample_image(photo)[top:bottom, left:right].astype(np.float32) / 255
    return pixels - pixels.mean((0, 1))


def _texture(rng: np.random.Generator, material: Material, height: int, width: int, scale: float) -> np.ndarray:
    """A patch of ``material``: float32 ``(height, width, 3)``, mirrored at the ends of its box."""
    zoom = scale * rng.uniform(*material.zoom)
    source = _region(material.region)
    detail = cv2.resize(source, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        detail = detail[:, ::-1]
    rows = _mirrored_indices(height, detail.shape[0], rng)
    columns = _mirrored_indices(width, detail.shape[1], rng)
    detail = detail[rows[:, None], columns[None, :]]
    grey = detail.mean(2, keepdims=True)
    contrast = material.contrast * rng.uniform(*DIFFICULTY.object_contrast)
    brightness, channel = DIFFICULTY.mode_jitter
    base = np.array(material.colour) + rng.normal(0, brightness) + rng.normal(0, channel, 3)
    return base.astype(np.float32) + np.float32(contrast) * (grey + material.chroma * (detail - grey))


def _mirrored_indices(length: int, period: int, rng: np.random.Generator) -> np.ndarray:
    """``length`` successive indices into ``range(period)``, running back and forth from a random start."""
    positions = (np.arange(length) + rng.integers(0, 2 * period)) % (2 * period)
    return np.minimum(positions, 2 * period - 1 - positions)


def _pick(rng: np.random.Generator, kind: str, modes: tuple[float, ...] | None = None) -> Material:
    """One of the materials of ``kind``."""
    materials = MATERIALS[kind]
    return materials[rng.choice(len(materials), p=modes)]


# --- background ------------------------------------------------------------------------------------------


def _background(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Layers from far to near, after one of five layouts, and a few blobs: float32 ``(height, width, 3)``."""

    def patch(kind: str) -> np.ndarray:
        return _texture(rng, _pick(rng, kind), height, width, scale)

    layout = rng.choice(5, p=(0.28, 0.20, 0.20, 0.16, 0.16))
    if layout == 0:  # a landscape: sky, land
        image = patch("sky")
        near = "ground" if rng.random() < 0.5 else "foliage"
        _cover_below(rng, image, patch(near), rng.uniform(0.35, 0.7), 0.06)
    elif layout == 1:  # a shore: sky, water, leaves or ground
        image = patch("sky")
        horizon = rng.uniform(0.25, 0.5)
        _cover_below(rng, image, patch("water"), horizon, 0.0)
        near = "ground" if rng.random() < 0.4 else "foliage"
        _cover_below(rng, image, patch(near), horizon + rng.uniform(0.15, 0.4), 0.05)
    elif layout == 2:  # leaves all over, or leaves over ground
        image = patch("foliage")
        _cover_below(rng, image, patch("ground" if rng.random() < 0.5 else "foliage"), rng.uniform(0.45, 1.0), 0.08)
    elif layout == 3:  # close up, the rest out of focus
        image = patch("bokeh")
    else:  # looking down
        image = patch("ground")
    for _ in range(rng.choice(len(DIFFICULTY.distractors), p=DIFFICULTY.distractors)):
        _bush(rng, image, patch("foliage" if rng.random() < 0.6 else "ground"), scale)
    return image


def _cover_below(
    rng: np.random.Generator, image: np.ndarray, layer: np.ndarray, horizon: float, roughness: float
) -> None:
    """Paint ``layer`` over ``image`` below a wavy line at ``horizon`` (both parts of the height)."""
    height, width = image.shape[:2]
    x = np.linspace(0, 1, width)
    line = np.full(width, horizon)
    for frequency in (1, 2, 4, 8, 16):
        line += roughness / frequency**0.7 * rng.normal() * np.sin(2 * np.pi * (frequency * x + rng.random()))
    alpha = np.clip(np.arange(height)[:, None] - line * height + 0.5, 0, 1).astype(np.float32)
    _blend(image, layer, alpha)


def _bush(rng: np.random.Generator, image: np.ndarray, layer: np.ndarray, scale: float) -> None:
    """Paint a blob of background with a ragged edge."""
    height, width = image.shape[:2]
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones(48)
    for frequency in (2, 3, 5, 9, 14):
        radius += 0.35 / frequency**0.6 * rng.normal() * np.sin(frequency * angle + rng.uniform(0, 2 * np.pi))
    points = np.stack([np.cos(angle) * rng.uniform(0.8, 1.6), np.sin(angle)], 1) * radius[:, None]
    centre = rng.uniform(0, 1, 2) * (width, height)
    alpha = _filled([points * rng.uniform(10, 26) * scale + centre], height, width)
    _blend(image, layer, alpha)


# --- objects ---------------------------------------------------------------------------------------------


def _depth_order(rng: np.random.Generator) -> list[int]:
    """Indices into :data:`OBJECTS`, one for each object of the scene, from back to front."""
    indices = [i for i, c in enumerate(OBJECTS) for _ in range(rng.choice(len(c.counts), p=c.counts))]
    depth = [OBJECTS[i].layer + rng.uniform(0, 2) for i in indices]
    return [indices[i] for i in np.argsort(depth, kind="stable")]


def _place_object(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, index: int, scale: float, light: np.ndarray
) -> None:
    """Paint one object of class ``OBJECTS[index]`` into ``image`` and ``mask``, with its shadow."""
    height, width = mask.shape
    cls = OBJECTS[index]
    radius = scale * rng.uniform(*cls.radius)
    outline = [contour * radius for contour in _SHAPES[cls.shape](rng)]
    alpha, centre = _least_hidden(rng, outline, mask, 0.8 * min(radius, 14 * scale))

    shift = -light * rng.uniform(1.5, 4.0) * scale
    shadow = cv2.warpAffine(alpha, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), (width, height))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1.5 * scale) * np.float32(rng.uniform(*DIFFICULTY.shadow))
    image *= 1 - shadow[..., None]

    texture = _texture(rng, _pick(rng, cls.name, cls.modes), height, width, scale)
    slope = _ramp(height, width, light, centre) / max(radius, 1)
    texture *= 1 + np.float32(DIFFICULTY.shading) * np.clip(slope, -1, 1)[..., None]
    _blend(image, texture, alpha)
    mask[alpha >= 0.5] = index + 1


def _least_hidden(
    rng: np.random.Generator, outline: list[np.ndarray], mask: np.ndarray, margin: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage ``(H, W)`` and centre of ``outline`` at the emptiest of a few random places."""
    height, width = mask.shape

    def place() -> tuple[float, np.ndarray, np.ndarray]:
        centre = np.array([rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)])
        alpha = _filled([contour + centre for contour in outline], height, width)
        return float((alpha * (mask > 0)).sum()), alpha, centre

    _, alpha, centre = min((place() for _ in range(DIFFICULTY.placements)), key=lambda found: found[0])
    return alpha, centre


def _filled(contours: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Coverage of polygons (``(n, 2)`` in x, y pixels; overlaps are holes), 0 to 1: float32 ``(H, W)``."""
    canvas = np.zeros((height, width), np.uint8)
    fixed = [np.round((contour - 0.5) * 16).astype(np.int32) for contour in contours]
    cv2.fillPoly(canvas, fixed, 255, lineType=cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def _disk(rng: np.random.Generator) -> list[np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * (1, rng.uniform(0.82, 1.0))
    return [_rotated(points, rng.uniform(0, np.pi))]


def _ring(rng: np.random.Generator) -> list[np.ndarray]:
    (outer,) = _disk(rng)
    return [outer, outer[::-1] * rng.uniform(0.40, 0.5)]


def _block(rng: np.random.Generator) -> list[np.ndarray]:
    half = np.array([1.0, rng.uniform(0.6, 0.95)])
    points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    return [_rotated(points, rng.normal(0, 0.2) + rng.integers(0, 2) * np.pi / 2)]


def _triangle(rng: np.random.Generator) -> list[np.ndarray]:
    angle = np.array([0, 2, 4]) * np.pi / 3 + rng.normal(0, 0.12, 3) - np.pi / 2
    return [_rotated(np.stack([np.cos(angle), np.sin(angle)], 1), rng.normal(0, 0.35))]


def _pole(rng: np.random.Generator) -> list[np.ndarray]:
    half = rng.uniform(0.085, 0.12)
    points = np.array([[-half, -1], [half, -1], [half * 1.2, 1], [-half * 1.2, 1]])
    return [_rotated(points, rng.normal(0, 0.12))]


def _star(rng: np.random.Generator) -> list[np.ndarray]:
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.42, 0.5))
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    return [_rotated(points, rng.uniform(0, 2 * np.pi))]


def _cross(rng: np.random.Generator) -> list[np.ndarray]:
    w = rng.uniform(0.30, 0.38)
    quarter = np.array([[w, w], [w, 1], [-w, 1]])
    points = np.concatenate([_rotated(quarter, k * np.pi / 2) for k in range(4)])
    return [_rotated(points, rng.normal(0, 0.3))]


_SHAPES = {
    "disk": _disk,
    "ring": _ring,
    "block": _block,
    "triangle": _triangle,
    "pole": _pole,
    "star": _star,
    "cross": _cross,
}


# --- photograph ------------------------------------------------------------------------------------------


def _photograph(rng: np.random.Generator, image: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Light, colour temperature, exposure, saturation, blur and noise; float32 in 0..1 to uint8."""
    d = DIFFICULTY
    height, width = image.shape[:2]
    ramp = _ramp(height, width, light, np.array([width, height]) / 2) / max(height, width)
    image = np.clip(image, 0, 1)
    image = image * (1 + np.float32(rng.uniform(0, d.light_gradient)) * ramp)[..., None]
    warm = rng.normal(0, d.tint)
    image = image * np.exp([warm, rng.normal(0, d.tint / 3), -warm]).astype(np.float32)
    grey = image.mean(2, keepdims=True)
    image = grey + np.float32(np.exp(rng.normal(0, d.saturation))) * (image - grey)
    mean = image.mean()
    image = mean + np.float32(np.exp(rng.normal(0, d.contrast))) * (image - mean)
    image = np.clip(image * np.float32(np.exp(rng.normal(*d.exposure))), 0, 1)
    image = image ** np.float32(np.exp(rng.normal(0, d.gamma)))
    if rng.random() < d.blur_probability:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*d.blur_sigma))
    image = image + rng.uniform(*d.noise) * rng.standard_normal(image.shape, np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


# --- geometry --------------------------------------------------------------------------------------------


def _unit_vector(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _rotated(points: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def _ramp(height: int, width: int, direction: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Distance in pixels from ``centre`` along ``direction`` (x, y): float32 ``(height, width)``."""
    x = (np.arange(width) - centre[0]) * direction[0]
    y = (np.arange(height) - centre[1]) * direction[1]
    return (y[:, None] + x[None, :]).astype(np.float32)


def _blend(image: np.ndarray, layer: np.ndarray, alpha: np.ndarray) -> None:
    """Paint ``layer`` over ``image`` (in place) where ``alpha`` ``(H, W)`` says so."""
    image += alpha[..., None] * (layer - image)
