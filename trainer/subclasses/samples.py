"""The samples that stage 3 clusters: the labelled positions of every image's feature (docs/method.md section 7)."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataloaders.geometry import nearest
from dataloaders.reading import IGNORE
from dataloaders.sets.description import Sample, SegmentationData
from trainer.subclasses.features import features_command, features_dir
from trainer.subclasses.table import PICTURE
from utils.config import Config
from utils.errors import UsageError
from utils.files import write_whole
from utils.logger import progress
from utils.palette import voc_palette

FEATURE_STRIDE = 8


class ImageSamples:
    """The samples of one image; they come from its feature file class by class and go into its subclass map.

    Parameters
    ----------
    sample
        A labelled image, whose feature stage 2 has written.
    data
        Its data set, of C classes.

    Attributes
    ----------
    path
        The feature file.
    classes
        int16 (h, w), the class of every position of the feature, or ``IGNORE``.
    per_class
        int64 (C,), samples of every class.
    subclasses
        int32 (h, w), what :meth:`assign` has put there, else ``IGNORE``.

    Raises
    ------
    UsageError
        The image, its label or its feature is gone or damaged, or they do not belong together.
    """

    def __init__(self, sample: Sample, config: Config, data: SegmentationData):
        n_classes = len(data.classes)
        self.sample = sample
        self.path = features_dir(config) / f"{sample.id}.npy"
        again = f"Run stage 2 again: {features_command(config)} --force"
        for path, what in ((sample.image, "image"), (sample.label, "label")):
            if not path.is_file():
                raise UsageError(f"{path}: the {what} that belongs to {self.path} is gone. Put it back.")
        if sample.label.name == PICTURE:
            raise UsageError(f"{sample.label}: stage 3 needs this name for a picture. Rename image and mask.")
        if not self.path.is_file():
            raise UsageError(
                f"{self.path}: the feature of a labelled image is missing. Run stage 2: {features_command(config)}"
            )
        try:
            shape = self._feature().shape
        except (ValueError, EOFError, OSError) as error:
            raise UsageError(f"{self.path}: is no feature file, or a damaged one ({error}). {again}") from None
        mask = data.read_mask(sample.label)
        height, width = mask.shape
        expected = (config.model.out_dim, -(-height // FEATURE_STRIDE), -(-width // FEATURE_STRIDE))
        if shape != expected:
            raise UsageError(
                f"{self.path}: has the shape {shape}, but {expected} is that of out_dim {config.model.out_dim} and "
                f"{sample.label}, {width} x {height} pixels. {again}"
            )
        self.label_size = mask.shape
        self.classes = resize_nearest(mask, expected[1:])
        self.per_class = np.bincount(self.classes[self.classes != IGNORE], minlength=n_classes)
        self.subclasses = np.full(self.classes.shape, IGNORE, np.int32)

    def of_class(self, index: int) -> np.ndarray:
        """Samples of one class, float16 (n, out_dim).

        Raises
        ------
        UsageError
            They are not finite.
        """
        found = self._feature()[:, self.classes == index].T.astype(np.float16, copy=False)
        if not np.isfinite(found).all():
            raise UsageError(
                f"{self.path}: holds values that are not finite; the baseline has diverged, or the file is damaged. "
                "Train stage 1 again with a lower learning rate, or run stage 2 again."
            )
        return found

    def assign(self, index: int, subclasses: np.ndarray) -> None:
        """Put the subclasses (n,) of one class's samples, in the order of :meth:`of_class`, into the map."""
        self.subclasses[self.classes == index] = subclasses

    def save_map(self, folder: Path, n_subclasses: int) -> None:
        """Write the subclass map in the label's size and under its name: 8 bit, or 16 beyond 255 subclasses."""
        kind = np.uint8 if n_subclasses <= 255 else np.uint16
        values = np.where(self.subclasses == IGNORE, np.iinfo(kind).max, self.subclasses).astype(kind)
        buffer, image = io.BytesIO(), Image.fromarray(resize_nearest(values, self.label_size))
        if kind is np.uint8:  # a palette image is not filtered, so it is read twice as fast, and shows its subclasses
            image.putpalette(voc_palette().tobytes())
        image.save(buffer, "PNG")
        write_whole(folder / self.sample.label.name, buffer.getvalue())

    def _feature(self) -> np.ndarray:
        """(out_dim, h, w), read from disk where it is used."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)


def samples_of_class(images: list[ImageSamples], index: int, out_dim: int) -> np.ndarray:
    """The samples of one class in all ``images``, in their order: float16 (n, out_dim).

    Only files of images that have the class are read, one at a time.
    """
    samples = np.empty((sum(image.per_class[index] for image in images), out_dim), np.float16)
    at = 0
    for image in images:
        if n := image.per_class[index]:
            samples[at : at + n] = image.of_class(index)
            at += n
    return samples


def samples_per_class(data: SegmentationData) -> np.ndarray:
    """N_c, the labelled positions of every class at stride 8, (C,), from the masks alone."""
    n_classes = len(data.classes)
    total = np.zeros(n_classes, np.int64)
    for sample in progress(data.labelled, desc="labelled masks", unit="mask"):
        mask = data.read_mask(sample.label)
        positions = resize_nearest(mask, tuple(-(-side // FEATURE_STRIDE) for side in mask.shape))
        total += np.bincount(positions[positions != IGNORE], minlength=n_classes)
    return total


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour as OpenCV's ``INTER_NEAREST`` takes it, also where (i * old) / new is whole but for rounding.

    ``values`` (H, W) of any type → ``size``.
    """
    rows, columns = (nearest(old, new, cv2.INTER_NEAREST) for old, new in zip(values.shape, size, strict=True))
    return values[rows[:, None], columns]
