"""A trained network that predicts the classes of images: ``load_model(checkpoint).predict(image)``."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dataloaders import images, published_classes
from dataloaders.images import ValueRange, read_image
from dataloaders.opening import orientation_of
from models import Segmentor, build_network
from models.architecture import infer_architecture
from models.execution import count_not_finite, refuse_not_finite
from trainer.prediction.protocol import mean_over_views
from trainer.prediction.sliding_window import logits_in_rows
from trainer.prediction.whole_image import WholeImages
from utils.checkpoint import check_fit, load_checkpoint, load_weights
from utils.config import Config
from utils.config_file import load_config
from utils.config_sections import PredictConfig
from utils.distributed import choose_device
from utils.errors import UsageError
from utils.palette import palette_of, voc_palette

ImageLike = str | Path | Image.Image | np.ndarray
"""An image file, a PIL image, or RGB as uint8 (H, W, 3)."""


class Predictor:
    """A network with what it takes to predict.

    Parameters
    ----------
    network
        Normalised images (N, 3, H, W) → class logits (N, C, H, W); what predicts is a copy of it.
    classes
        Names in the order of their indices.
    palette
        uint8 (256, 3), the RGB colour of every class index.
    device
        Where the network runs.
    settings
        Windows, scales and flip.
    precision
        As ``trainer.precision``.
    value_range
        The values of 16-bit images that become black and white; None is the whole range of the type.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: tuple[str, ...],
        palette: np.ndarray,
        device: torch.device | str = "cpu",
        settings: PredictConfig | None = None,
        precision: str = "auto",
        value_range: ValueRange | None = None,
    ):
        self.value_range = value_range
        self.logits_of = WholeImages(network, torch.device(device), precision)
        self.classes, self.palette = classes, palette
        self.settings = settings or PredictConfig()

    def predict(self, image: ImageLike) -> np.ndarray:
        """Class indices, uint8 (H, W)."""
        image = as_rgb(image, self.value_range)
        labels = np.empty(image.shape[:2], np.uint8)
        for rows, logits in self._logits(image):
            labels[rows] = _labels(logits)
        return labels

    def predict_with_confidence(self, image: ImageLike) -> tuple[np.ndarray, np.ndarray]:
        """Class indices, uint8 (H, W), and the probability of each, float32 (H, W)."""
        image = as_rgb(image, self.value_range)
        labels, confidence = np.empty(image.shape[:2], np.uint8), np.empty(image.shape[:2], np.float32)
        for rows, logits in self._logits(image):
            labels[rows] = _labels(logits)
            confidence[rows] = logits.softmax(0).amax(0).cpu().numpy()
        return labels, confidence

    def probabilities(self, image: ImageLike) -> np.ndarray:
        """The probability of every class, float32 (C, H, W): 4 x C bytes a pixel."""
        bands = [logits.softmax(0).cpu().numpy() for _, logits in self._logits(as_rgb(image, self.value_range))]
        return np.concatenate(bands, axis=1)

    @torch.inference_mode()
    def _logits(self, image: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
        yield from logits_in_rows(image, self._mean_over_views, self.settings.window, self.settings.overlap)

    def _mean_over_views(self, crop: np.ndarray) -> Tensor:
        return mean_over_views(crop, self.settings.scales, self.settings.flip, self._one_view)

    def _one_view(self, crop: np.ndarray) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).unsqueeze(0)
        (logits,) = self.logits_of(images, [crop.shape[:2]])
        refuse_not_finite(int(count_not_finite(logits)), "the network")
        return logits


def load_model(
    checkpoint: str | Path,
    config: str | Path | Config | None = None,
    *,
    device: str | torch.device = "auto",
    settings: PredictConfig | None = None,
) -> Predictor:
    """A checkpoint, ours or the original's, ready to predict.

    Parameters
    ----------
    checkpoint
        ``best_model.pth`` or another; which network it holds follows from its weights.
    config
        A configuration or its file, for its settings of prediction and, where the checkpoint does not say them, names
        and colours of the classes. Without both, classes have their numbers as names and PASCAL VOC's colours.
    device
        "auto" (CUDA where it is), "cuda", "cpu", or a device.
    settings
        Windows, scales and flip, in place of the configuration's.

    Raises
    ------
    UsageError
        The checkpoint or the configuration cannot be read, or they do not fit each other.
    """
    if config is not None and not isinstance(config, Config):
        config = load_config(config)
    network, classes, palette, value_range = read_network(Path(checkpoint), config)
    return Predictor(
        network,
        classes=classes,
        palette=palette,
        device=device if isinstance(device, torch.device) else choose_device(device),
        settings=settings or (config.predict if config else None),
        precision=config.trainer.precision if config else "auto",
        value_range=value_range,
    )


def read_network(path: Path, config: Config | None) -> tuple[Segmentor, tuple[str, ...], np.ndarray, ValueRange | None]:
    """The network that a checkpoint holds, on the CPU; names and colours of its classes, as ``load_model`` says; and
    the range of the 16-bit images that it was trained on, unless the configuration says another.

    Raises
    ------
    UsageError
        As ``load_model``.
    """
    contents = load_checkpoint(path)
    try:
        architecture = infer_architecture(contents["state_dict"], contents.get("trunk"))
    except ValueError as error:
        raise UsageError(f"{path}: holds no network of this project or of the original ({error}).") from None
    # Without values first: shapes that a file only claims would take all memory.
    with torch.device("meta"):
        check_fit(build_network(**architecture), contents["state_dict"], path)
    network = build_network(**architecture)
    load_weights(network, contents["state_dict"], path)
    stated = config.data.value_range if config else "auto"
    value_range = contents.get("value_range") if stated == "auto" else stated
    classes, palette = _classes(path, contents, config, architecture["n_classes"])
    return network, classes, palette, tuple(value_range) if value_range else None


def as_rgb(image: ImageLike, value_range: ValueRange | None = None) -> np.ndarray:
    """RGB as uint8 (H, W, 3) of whatever ``predict`` takes; files and PIL images upright, as viewers show them.

    Raises
    ------
    UsageError
        The file cannot be read, or the array is of another shape or type.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image), value_range=value_range)
    if isinstance(image, Image.Image):
        image.load()  # which turns a TIFF, and finds the orientation of a PNG
        values = np.asarray(image if image.mode[0] in "IF" else image.convert("RGB"))
        upright = values if image.format == "TIFF" else images.turned(values, orientation_of(image))
        return images.as_rgb(upright, "the PIL image", value_range)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UsageError(
            f"an image must be uint8 (height, width, 3) in the order red, green, blue, not {image.dtype} {image.shape}"
        )
    return image


def _classes(path: Path, contents: dict, config: Config | None, n_classes: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and colours: the checkpoint's, else the configuration's, else numbers and PASCAL VOC's."""
    if "classes" in contents:
        names, palette = tuple(contents["classes"]), palette_of(tuple(map(tuple, contents["colours"])))
    else:
        known = published_classes(config) if config else None
        names, palette = known or (tuple(map(str, range(n_classes))), voc_palette())
    if len(names) != n_classes:
        raise UsageError(f"{path}: is for {n_classes} classes, but the configuration names {len(names)}.")
    return names, palette


def _labels(logits: Tensor) -> np.ndarray:
    return logits.argmax(0).byte().cpu().numpy()
