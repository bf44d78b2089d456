"""One picture of what two runs predict, side by side."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataloaders.sets.description import SegmentationData
from trainer.evaluation.evaluate import read_prediction
from utils.files import write_atomically
from utils.pictures import fitted

SCENES = 6
BLOCKS = 2
"""Scenes stand in rows, in this many blocks side by side."""
MAX_WIDTH, MAX_HEIGHT = 320, 640
GAP = 4
BETWEEN = 24
LINE = 24
INK, PAPER = "black", "white"


def save_comparison(path: Path, data: SegmentationData, runs: dict[str, Path]) -> None:
    """Write a grid: a row a scene; image, target and each run's prediction, under headings and above a legend.

    Shown are the validation images with the most classes, where the rare ones are.
    """
    targets = {sample.id: np.unique(data.read_mask(sample.mask)) for sample in data.validation}
    shown = sorted(data.validation, key=lambda sample: (-len(targets[sample.id]), sample.id))[:SCENES]
    scenes = []
    for sample in shown:
        image, target = data.read_pair(sample)
        masks = [target, *(read_prediction(run, sample, len(data.classes), target.shape) for run in runs.values())]
        scenes.append([Image.fromarray(image), *(Image.fromarray(data.palette[mask]) for mask in masks)])
    width = min(MAX_WIDTH, max(scene[0].width for scene in scenes))
    per_block = -(-len(scenes) // BLOCKS)
    blocks = [
        _block(scenes[first : first + per_block], ("image", "target", *runs), width)
        for first in range(0, len(scenes), per_block)
    ]
    present = sorted(
        set(np.concatenate([targets[sample.id] for sample in shown]).tolist()) & set(range(len(data.classes)))
    )
    legend = _legend(
        [(data.classes[index], tuple(data.palette[index])) for index in present],
        sum(block.width + BETWEEN for block in blocks) - BETWEEN,
    )
    grid = Image.new("RGB", (legend.width, max(block.height for block in blocks) + legend.height), PAPER)
    for number, block in enumerate(blocks):
        grid.paste(block, (number * (block.width + BETWEEN), 0))
    grid.paste(legend, (0, grid.height - legend.height))
    write_atomically(path, lambda file: grid.save(file, "PNG", optimize=True))


def _block(scenes: list[list[Image.Image]], headings: tuple[str, ...], width: int) -> Image.Image:
    """Scenes in rows; every picture ``width`` wide, or ``MAX_HEIGHT`` high."""
    sizes = [fitted(scene[0].size, (width, MAX_HEIGHT), enlarge=True) for scene in scenes]
    heights = [height for _, height in sizes]
    size = len(headings) * (width + GAP) - GAP, LINE + sum(height + GAP for height in heights)
    block = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(block)
    for column, heading in enumerate(headings):
        draw.text((column * (width + GAP), 2), heading, INK, _font())
    top = LINE
    for scene, (drawn, height) in zip(scenes, sizes, strict=True):
        for column, picture in enumerate(scene):
            resampling = Image.Resampling.NEAREST if column else Image.Resampling.BICUBIC
            left = column * (width + GAP) + (width - drawn) // 2
            block.paste(picture.resize((drawn, height), resampling), (left, top))
        top += height + GAP
    return block


def _legend(classes: list[tuple[str, tuple[int, ...]]], width: int) -> Image.Image:
    """Colours and names of classes, in as many lines as they need."""
    places, x, y = [], 0, 4
    for name, _ in classes:
        needed = 22 + round(_font().getlength(name)) + 16
        if x and x + needed > width:
            x, y = 0, y + LINE
        places.append((x, y))
        x += needed
    legend = Image.new("RGB", (width, y + LINE), PAPER)
    draw = ImageDraw.Draw(legend)
    for (name, colour), (x, y) in zip(classes, places, strict=True):
        draw.rectangle((x, y + 3, x + 14, y + 17), fill=colour, outline="gray")
        draw.text((x + 22, y), name, INK, _font())
    return legend


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(15)
