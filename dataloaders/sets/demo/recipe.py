"""What the demo's scenes are drawn from: textures, objects, and how hard the task is."""

import hashlib
from dataclasses import dataclass

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Difficulty:
    """How far scenes differ; colours and brightness are in 0..1, pairs are ranges, if not said."""

    size_range: tuple[float, float] = (0.875, 1.125)  # height and width, as factors of the nominal size
    exposure: tuple[float, float] = (-0.04, 0.14)  # log brightness, mean and standard deviation
    gamma: float = 0.10  # log gamma, standard deviation
    contrast: float = 0.10  # log contrast, standard deviation
    saturation: float = 0.30  # log saturation, standard deviation
    tint: float = 0.08  # log gain of red against blue (colour temperature), standard deviation
    light_gradient: float = 0.16  # brightness change from one side of the image to the other, largest
    blur_probability: float = 0.3
    blur_sigma: tuple[float, float] = (0.4, 1.0)  # pixels
    noise: tuple[float, float] = (0.004, 0.016)  # standard deviation of pixel noise
    mode_jitter: tuple[float, float] = (
        0.03,
        0.015,
    )  # of a material: brightness, each channel; std. deviations
    object_contrast: tuple[float, float] = (0.9, 1.1)  # factor of a material's texture contrast
    shadow: tuple[float, float] = (0.15, 0.45)  # darkness of a cast shadow
    shading: float = 0.16  # light across one object
    placements: int = 5  # places tried for an object; the emptiest is taken, so more means less occlusion
    distractors: tuple[float, ...] = (0.6, 0.3, 0.1)  # probability of 0, 1, 2 background blobs


@dataclass(frozen=True)
class Material:
    """A piece of a photograph with its mean colour replaced.

    ``region`` names a box of :data:`REGIONS`; ``zoom`` is the range of magnification; ``chroma`` is the part
    of the photograph's own variation of colour that stays (its variation of brightness always stays, times
    ``contrast``).
    """

    region: str
    colour: Rgb
    zoom: tuple[float, float] = (0.8, 1.4)
    contrast: float = 1.0
    chroma: float = 0.5


@dataclass(frozen=True)
class ObjectClass:
    """One class: its shape, how many in an image, how large (pixels of a 128 px scene), its materials.

    ``counts[n]`` is the probability of ``n`` objects in an image; ``modes`` are the probabilities of the
    class's materials; objects of higher ``layer`` mostly lie in front.
    """

    name: str
    colour: tuple[int, int, int]
    shape: str
    counts: tuple[float, ...]
    radius: tuple[float, float]
    layer: float
    modes: tuple[float, ...]


REGIONS: dict[str, tuple[str, int, int, int, int]] = {  # photograph, left, top, right, bottom
    "sky": ("china.jpg", 345, 0, 640, 130),
    "water": ("china.jpg", 358, 244, 500, 292),
    "grey_leaves": ("china.jpg", 385, 325, 550, 425),
    "green_leaves": ("china.jpg", 20, 352, 150, 427),
    "tree": ("china.jpg", 580, 190, 640, 400),
    "facade": ("china.jpg", 110, 190, 305, 238),
    "roof": ("china.jpg", 166, 88, 252, 120),
    "eaves": ("china.jpg", 90, 250, 170, 282),
    "petals": ("flower.jpg", 224, 136, 396, 308),
    "bokeh": ("flower.jpg", 456, 0, 640, 376),
    "leaf": ("flower.jpg", 0, 90, 140, 330),
}

MATERIALS: dict[str, tuple[Material, ...]] = {
    # background
    "sky": (
        Material("sky", (0.66, 0.80, 0.93), (1.0, 2.0), 1.0, 1.0),
        Material("sky", (0.88, 0.88, 0.88), (1.0, 2.0), 1.0, 0.5),
    ),
    "water": (
        Material("water", (0.62, 0.72, 0.76), (1.0, 2.0), 1.4),
        Material("water", (0.35, 0.48, 0.56), (1.0, 2.0), 1.6),
    ),
    "foliage": (
        Material("green_leaves", (0.34, 0.40, 0.16), (0.8, 1.6), 0.9, 0.8),
        Material("grey_leaves", (0.40, 0.42, 0.34), (0.8, 1.6), 0.8, 0.8),
    ),
    "bokeh": (
        Material("bokeh", (0.05, 0.22, 0.26), (0.6, 1.2), 1.2, 1.0),
        Material("leaf", (0.07, 0.26, 0.22), (0.7, 1.3), 1.2, 1.0),
    ),
    "ground": (
        Material("grey_leaves", (0.62, 0.56, 0.46), (0.5, 0.8), 0.30, 0.3),
        Material("green_leaves", (0.46, 0.54, 0.28), (0.5, 0.8), 0.35, 0.4),
    ),
    # objects: several modes of colour for each class, one kind of texture
    "disk": (
        Material("petals", (0.90, 0.58, 0.34), (0.35, 0.60), 1.1, 0.9),
        Material("petals", (0.84, 0.42, 0.56), (0.35, 0.60), 1.1, 0.5),
    ),
    "block": (
        Material("facade", (0.45, 0.18, 0.14), (0.8, 1.2), 0.9, 1.0),
        Material("facade", (0.50, 0.50, 0.54), (0.8, 1.2), 0.9, 0.3),
    ),
    "ring": (
        Material("water", (0.92, 0.92, 0.90), (0.8, 1.6), 1.2),
        Material("water", (0.20, 0.45, 0.80), (0.8, 1.6), 1.2),
    ),
    "triangle": (
        Material("roof", (0.16, 0.62, 0.52), (0.7, 1.1), 1.0, 0.9),
        Material("roof", (0.52, 0.30, 0.70), (0.7, 1.1), 1.0, 0.5),
    ),
    "pole": (
        Material("tree", (0.34, 0.24, 0.15), (0.7, 1.2), 0.4, 0.2),
        Material("tree", (0.72, 0.71, 0.68), (0.7, 1.2), 0.3, 0.1),
    ),
    "star": (
        Material("leaf", (0.80, 0.20, 0.80), (0.7, 1.2), 0.9, 0.4),
        Material("leaf", (0.97, 0.85, 0.15), (0.7, 1.2), 0.9, 0.4),
    ),
    "cross": (
        Material("eaves", (0.50, 0.90, 0.15), (0.8, 1.2), 0.45, 0.3),
        Material("eaves", (0.10, 0.10, 0.12), (0.8, 1.2), 0.35, 0.2),
    ),
}

BACKGROUND_COLOUR = (0, 0, 0)
OBJECTS: tuple[ObjectClass, ...] = (
    ObjectClass("disk", (128, 0, 0), "disk", (0.40, 0.52, 0.08), (26, 36), 0, (0.92, 0.08)),
    ObjectClass("block", (0, 128, 0), "block", (0.50, 0.46, 0.04), (22, 32), 0, (0.92, 0.08)),
    ObjectClass("ring", (128, 128, 0), "ring", (0.58, 0.40, 0.02), (20, 29), 1, (0.92, 0.08)),
    ObjectClass("triangle", (0, 0, 128), "triangle", (0.58, 0.40, 0.02), (21, 30), 1, (0.92, 0.08)),
    ObjectClass("pole", (128, 0, 128), "pole", (0.55, 0.41, 0.04), (48, 76), 1, (0.92, 0.08)),
    ObjectClass("star", (0, 128, 128), "star", (0.84, 0.16), (19, 26), 2, (0.92, 0.08)),
    ObjectClass("cross", (192, 128, 0), "cross", (0.88, 0.12), (17, 23), 2, (0.92, 0.08)),
)
DIFFICULTY = Difficulty()
NOMINAL = 128.0  # pixels; radii in OBJECTS are for a scene of this size


def recipe() -> str:
    """Digest of every constant that a scene is drawn from: another recipe, another data set."""
    constants = (DIFFICULTY, OBJECTS, MATERIALS, REGIONS)
    return hashlib.sha256(repr(constants).encode()).hexdigest()[:12]
