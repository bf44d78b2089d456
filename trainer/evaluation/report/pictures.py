"""The report's pictures: which validation images to show, and each as a picture that the page itself holds."""

import base64
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dataloaders.loaders import evaluation_loader
from dataloaders.reading import read_mask
from dataloaders.sets.description import Sample, SegmentationData
from dataloaders.streams import EvaluationStream
from trainer.evaluation.evaluate import PREDICTIONS, read_prediction
from trainer.methods.usrn import entropy
from trainer.prediction.whole_image import WholeImages
from utils.config import Config
from utils.palette import save_mask
from utils.pictures import fitted

PER_GROUP = 4
MAX_WIDTH, MAX_HEIGHT = 400, 800
ENTROPY = "entropy"
"""Folder of the entropy maps, in the run's."""
# From sure to unsure: black, violet, orange, pale yellow.
ENTROPY_COLOURS = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))


class Scene(NamedTuple):
    """A validation image as uint8 (3, H, W), its target and its prediction, class indices (H, W)."""

    id: str
    image: Tensor
    target: Tensor
    prediction: Tensor


@dataclass(frozen=True)
class Group:
    """Images to show under one heading."""

    title: str
    ids: list[str]


def choose(own: dict[str, float], baseline: dict[str, float]) -> list[Group]:
    """Images to show, by the scores of all: the extremes, and some from all over the list.

    The extremes are those that gained and lost most against the baseline; without its scores, the best and the worst.
    """
    common = [id_ for id_ in own if id_ in baseline]
    if common:
        change = {id_: own[id_] - baseline[id_] for id_ in common}
        ordered = sorted(common, key=lambda id_: (-change[id_], id_))
        up = Group("Gained most", [id_ for id_ in ordered if change[id_] > 0][:PER_GROUP])
        down = Group("Lost most", [id_ for id_ in reversed(ordered) if change[id_] < 0][:PER_GROUP])
    else:
        ordered = sorted(own, key=lambda id_: (-own[id_], id_))
        up, down = Group("Best", ordered[:PER_GROUP]), Group("Worst", ordered[PER_GROUP:][::-1][:PER_GROUP])
    rest = [id_ for id_ in common or own if id_ not in up.ids + down.ids]
    count = min(PER_GROUP, len(rest))
    spread = Group("From all over the list", [rest[number * len(rest) // count] for number in range(count)])
    return [group for group in (up, down, spread) if group.ids]


@torch.inference_mode()
def save_entropy_maps(
    run_dir: Path, config: Config, data: SegmentationData, ids: set[str], network: nn.Module, device: torch.device
) -> None:
    """Write the class branch's normalised entropy, 0 to 255 for 0 to 1, of these images to ``entropy/<id>.png``."""
    folder = run_dir / ENTROPY
    shutil.rmtree(folder, ignore_errors=True)  # maps of an earlier network
    folder.mkdir(parents=True)
    samples = tuple(sample for sample in data.validation if sample.id in ids)
    logits_of = WholeImages(network, device, config.trainer.precision)
    for batch in evaluation_loader(EvaluationStream(data, samples), batch_size=1, num_workers=0):
        (logits,) = logits_of(batch["images"], [target.shape for target in batch["targets"]])
        values = entropy(logits.softmax(0).unsqueeze(0))[0]
        mask = values.mul(255).round().clamp(0, 255).byte().cpu().numpy()
        save_mask(folder / f"{batch['samples'][0].id}.png", mask, _entropy_palette())


def mask_picture(mask: np.ndarray, palette: np.ndarray) -> str:
    """A mask of class indices (H, W), ``IGNORE`` among them, in the data set's colours."""
    small = _small(Image.fromarray(mask.astype(np.uint8)), Image.Resampling.NEAREST)
    small.putpalette(palette.tobytes())
    return _data_uri(small, "png", optimize=True)


def entropy_picture(path: Path) -> str:
    values = read_mask(path, 256, ignore_index=256)  # all values mean something here
    small = _small(Image.fromarray(values.astype(np.uint8)), Image.Resampling.BILINEAR)
    return _jpeg(Image.fromarray(_entropy_palette()[np.asarray(small)]))


def pictures_of(sample: Sample, data: SegmentationData, run_dirs: dict[str, Path]) -> dict[str, str]:
    """Data URIs by caption: image, target, every run's prediction, the last run's entropy where it is there.

    Empty where a prediction is missing.
    """
    if not all((run_dir / PREDICTIONS / f"{sample.id}.png").exists() for run_dir in run_dirs.values()):
        return {}
    image, target = data.read_pair(sample)
    pictures = {"image": _jpeg(Image.fromarray(image)), "target": mask_picture(target, data.palette)}
    for name, run_dir in run_dirs.items():
        prediction = read_prediction(run_dir, sample, len(data.classes), target.shape)
        pictures[name] = mask_picture(prediction, data.palette)
    entropy_map = list(run_dirs.values())[-1] / ENTROPY / f"{sample.id}.png"
    return pictures | ({"entropy": entropy_picture(entropy_map)} if entropy_map.exists() else {})


def pictures_of_scene(scene: Scene, palette: np.ndarray) -> dict[str, str]:
    """Data URIs by caption."""
    masks = {"target": scene.target, "prediction": scene.prediction}
    image = _jpeg(Image.fromarray(np.ascontiguousarray(scene.image.permute(1, 2, 0).numpy())))
    return {"image": image} | {caption: mask_picture(mask.numpy(), palette) for caption, mask in masks.items()}


def _entropy_palette() -> np.ndarray:
    """uint8 (256, 3)."""
    anchors = np.linspace(0, 255, len(ENTROPY_COLOURS))
    channels = [np.interp(np.arange(256), anchors, channel) for channel in np.transpose(ENTROPY_COLOURS)]
    return np.stack(channels, 1).round().astype(np.uint8)


def _small(image: Image.Image, resampling: int) -> Image.Image:
    return image.resize(fitted(image.size, (MAX_WIDTH, MAX_HEIGHT)), resampling)


def _jpeg(image: Image.Image) -> str:
    return _data_uri(_small(image, Image.Resampling.LANCZOS), "jpeg", quality=82)


def _data_uri(image: Image.Image, kind: str, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
