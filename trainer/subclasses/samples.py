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
from utils.distributed import failing_together
from utils.errors import UsageError
from utils.files import write_whole
from utils.logger import progress
from utils.palette import voc_palette

FEATURE_STRIDE = 8
MAX_BYTES = 4 * 10**9
"""Of samples that a process of stage 3 keeps at a time. VOC's largest split has 1 GB of them, Cityscapes' 6 GB."""


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
        for path, what in ((sample.image, "image"), (sample.mask, "label")):
            if not path.is_file():
                raise UsageError(f"{path}: the {what} that belongs to {self.path} is gone. Put it back.")
        if sample.mask.name == PICTURE:
            raise UsageError(f"{sample.label}: stage 3 needs this name for a picture. Rename image and mask.")
        if not self.path.is_file():
            raise UsageError(
                f"{self.path}: the feature of a labelled image is missing. Run stage 2: {features_command(config)}"
            )
        try:
            shape = self._feature().shape
        except (ValueError, EOFError, OSError, OverflowError, TypeError) as error:  # whatever its header says
            raise UsageError(f"{self.path}: is no feature file, or a damaged one ({error}). {again}") from None
        mask = data.read_mask(sample.mask)
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

    def of_classes(self, indices: list[int]) -> list[np.ndarray]:
        """Samples of each of these classes, float16 (n, out_dim); the feature file is read once.

        Raises
        ------
        UsageError
            They are not finite.
        """
        feature = np.array(self._feature())
        found = [feature[:, self.classes == index].T.astype(np.float16, copy=False) for index in indices]
        if not all(np.isfinite(samples).all() for samples in found):
            raise UsageError(
                f"{self.path}: holds values that are not finite; the baseline has diverged, or the file is damaged. "
                "Train stage 1 again with a lower learning rate, or run stage 2 again."
            )
        return found

    def assign(self, index: int, subclasses: np.ndarray) -> None:
        """Put the subclasses (n,) of one class's samples, in the order of :meth:`of_classes`, into the map."""
        self.subclasses[self.classes == index] = subclasses

    def save_map(self, folder: Path, n_subclasses: int) -> None:
        """Write the subclass map in the label's size and under its name: 8 bit, or 16 beyond 255 subclasses."""
        kind = np.uint8 if n_subclasses <= 255 else np.uint16
        values = np.where(self.subclasses == IGNORE, np.iinfo(kind).max, self.subclasses).astype(kind)
        buffer, image = io.BytesIO(), Image.fromarray(resize_nearest(values, self.label_size))
        if kind is np.uint8:  # a palette image is not filtered, so it is read twice as fast, and shows its subclasses
            image.putpalette(voc_palette().tobytes())
        image.save(buffer, "PNG")
        write_whole(folder / self.sample.mask.name, buffer.getvalue())

    def _feature(self) -> np.ndarray:
        """(out_dim, h, w), read from disk where it is used."""
        with np.errstate(over="ignore"):  # of a giant shape in a header
            feature = np.lib.format.open_memmap(self.path, mode="r")  # never an archive of arrays, nor pickled objects
        if feature.dtype.kind != "f":
            raise ValueError(f"it holds values of the type {feature.dtype}")
        return feature


class ClassSamples:
    """The samples of one class after the other, from as few readings of the feature files as memory allows.

    A reading takes the samples of as many classes as fit into ``limit``; a class that alone is larger is read alone.

    Parameters
    ----------
    images
        Images of this process.
    classes
        The classes that will be asked for, in that order.
    largest
        Samples of every class in the process that has most of it, so that all processes read in step.
    out_dim
        Channels of a feature.
    limit
        Bytes of samples that a process keeps.
    """

    def __init__(
        self, images: list[ImageSamples], classes: list[int], largest: np.ndarray, out_dim: int, limit: int = MAX_BYTES
    ):
        self.images, self.waiting, self.out_dim, self.limit = images, list(classes), out_dim, limit
        self.bytes = {index: 2 * out_dim * int(largest[index]) for index in classes}
        self.read: dict[int, np.ndarray] = {}

    def take(self, index: int) -> np.ndarray:
        """The samples of a class in all images, in their order: float16 (n, out_dim). They are handed over, not kept.

        Raises
        ------
        UsageError
            As ``ImageSamples.of_classes``, in every process.
        """
        if index not in self.read:
            with failing_together():
                self._read_next()
        return self.read.pop(index)

    def _read_next(self) -> None:
        group: list[int] = []
        size = 0
        while self.waiting and (not group or size + self.bytes[self.waiting[0]] <= self.limit):
            group.append(self.waiting.pop(0))
            size += self.bytes[group[-1]]
        counts = {index: sum(int(image.per_class[index]) for image in self.images) for index in group}
        self.read = {index: np.empty((n, self.out_dim), np.float16) for index, n in counts.items()}
        at = dict.fromkeys(group, 0)
        for image in progress(self.images, desc="features", unit="image"):
            present = [index for index in group if image.per_class[index]]
            for index, samples in zip(present, image.of_classes(present) if present else [], strict=True):
                self.read[index][at[index] : at[index] + len(samples)] = samples
                at[index] += len(samples)


def samples_per_class(data: SegmentationData) -> np.ndarray:
    """N_c, the labelled positions of every class at stride 8, (C,), from the masks alone."""
    n_classes = len(data.classes)
    total = np.zeros(n_classes, np.int64)
    for sample in progress(data.labelled, desc="labelled masks", unit="mask"):
        mask = data.read_mask(sample.mask)
        positions = resize_nearest(mask, tuple(-(-side // FEATURE_STRIDE) for side in mask.shape))
        total += np.bincount(positions[positions != IGNORE], minlength=n_classes)
    return total


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour as OpenCV's ``INTER_NEAREST`` takes it, also where (i * old) / new is whole but for rounding.

    ``values`` (H, W) of any type → ``size``.
    """
    rows, columns = (nearest(old, new, cv2.INTER_NEAREST) for old, new in zip(values.shape, size, strict=True))
    return values[rows[:, None], columns]
