"""The labelled, the unlabelled and the evaluation stream, written once for all data sets.

An item of a training stream follows from the image, the seed, the stream and the draw's number alone: a run that goes
on at iteration t sees what an unbroken one would have seen.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from dataloaders.cache import SharedCache
from dataloaders.cutmix import draw_box
from dataloaders.geometry import Geometry, pad_to_multiple
from dataloaders.photometry import draw_photometry
from dataloaders.reading import IGNORE, read_subclass_map
from dataloaders.sets.description import Sample, SegmentationData, refuse_other_size
from utils.errors import UsageError

LABELLED, UNLABELLED = 0, 1


class _TrainingStream(Dataset):
    """Items of training draws.

    With ``skip_bad``, a sample that cannot be read is replaced by another one: which one follows from the seed and the
    draw's number, like everything else. The entry ``bad`` of an item holds the messages of the samples that this item
    replaces, one a line; it is "" where the sample itself could be read.
    """

    number: int
    n_masks: int

    def __init__(
        self,
        samples: Sequence[Sample],
        geometry: Geometry,
        *,
        seed: int,
        skip_bad: bool = False,
        cache_bytes: int = 0,
    ):
        self.samples, self.geometry, self.seed, self.skip_bad = tuple(samples), geometry, seed, skip_bad
        self.cache = SharedCache(len(samples), self.n_masks, cache_bytes)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, draw = key
        bad = []
        for candidate in self._candidates(index, draw):
            sample, arrays = self.samples[candidate], self.cache.get(candidate)
            if arrays is None:
                try:
                    image, masks, size = self._read(sample)
                except UsageError as error:
                    if not self.skip_bad:
                        raise
                    bad.append(str(error))
                    continue
                arrays = self.geometry.shrunk(image, masks + self._read_more(sample, size))
                self.cache.put(candidate, *arrays)
            rng = np.random.default_rng([self.seed, self.number, 1, draw])
            image, masks = self.geometry(*arrays, rng)
            return self._item(sample, _channels_first(image), masks, rng) | {"bad": "\n".join(bad)}
        raise UsageError(f"none of the {len(self)} images of this stream can be used; the first: {bad[0]}")

    def _candidates(self, index: int, draw: int) -> Iterator[int]:
        yield index
        for other in np.random.default_rng([self.seed, self.number, 2, draw]).permutation(len(self)):
            if other != index:
                yield int(other)

    def _read(self, sample: Sample) -> tuple[np.ndarray, list[np.ndarray], tuple[int, int]]:
        """Image and masks of a sample, which may be a bad one, and the height and width of its files."""
        raise NotImplementedError

    def _read_more(self, sample: Sample, size: tuple[int, int]) -> list[np.ndarray]:
        """Further masks, in which an error is no sample's fault."""
        return []

    def _item(self, sample: Sample, image: torch.Tensor, masks: list[np.ndarray], rng: np.random.Generator) -> dict:
        """What the training takes, of the augmented arrays."""
        raise NotImplementedError


def subclass_map_path(folder: Path, sample: Sample) -> Path:
    """Where a labelled sample's subclass map is: under its mask's name, or its image's as the original has it."""
    path = folder / sample.mask.name
    by_image = path.with_name(f"{sample.image.stem}.png")  # Cityscapes
    return by_image if not path.is_file() and by_image.is_file() else path


class LabelledStream(_TrainingStream):
    """Items: ``id``; ``image`` uint8 (3, S, S); ``target`` and, where subclass maps are given, ``subclass``
    int16 (S, S); ``photometry`` (9,) where colour jitter is on; ``bad``."""

    number = LABELLED

    def __init__(
        self,
        data: SegmentationData,
        geometry: Geometry,
        *,
        seed: int,
        jitter: bool = False,
        skip_bad: bool = False,
        subclass_dir: Path | None = None,
        n_subclasses: int = 0,
        cache_bytes: int = 0,
    ):
        self.n_masks = 1 if subclass_dir is None else 2
        super().__init__(data.labelled, geometry, seed=seed, skip_bad=skip_bad, cache_bytes=cache_bytes)
        self.data, self.jitter = data.without_samples(), jitter
        self.subclass_dir, self.n_subclasses = subclass_dir, n_subclasses

    def _read(self, sample: Sample) -> tuple[np.ndarray, list[np.ndarray], tuple[int, int]]:
        image, mask = self.data.read_pair(sample, self.geometry.largest_side)
        return image, [mask], mask.shape

    def _read_more(self, sample: Sample, size: tuple[int, int]) -> list[np.ndarray]:
        if self.subclass_dir is None:
            return []
        path = subclass_map_path(self.subclass_dir, sample)
        subclasses = read_subclass_map(path, self.n_subclasses)
        if subclasses.shape != size:
            raise UsageError(
                f"{path}: is {subclasses.shape[1]} x {subclasses.shape[0]} pixels, but its mask {sample.label} is "
                f"{size[1]} x {size[0]}. Run stage 3 again (`--clustering True --force`)."
            )
        return [subclasses]

    def _item(self, sample: Sample, image: torch.Tensor, masks: list[np.ndarray], rng: np.random.Generator) -> dict:
        item = {"id": sample.id, "image": image}
        item |= zip(("target", "subclass"), map(_own_tensor, masks), strict=False)
        if self.jitter:
            item["photometry"] = torch.from_numpy(draw_photometry(rng, strong=False))
        return item


class UnlabelledStream(_TrainingStream):
    """Items: ``id``; ``image`` uint8 (3, S, S), of which all views are made; ``photometry`` (V, 9) of the V strong
    views; with CutMix or several views, ``box`` (V, 4) of each; ``bad``; with ``masks``, ``target`` int16 (S, S), which
    is ``IGNORE`` for an image without a mask; and, with ``mark_padding``, ``padding`` bool (S, S).

    Masks are opened with ``masks`` alone. Nothing else of an item depends on them.
    """

    number = UNLABELLED

    def __init__(
        self,
        data: SegmentationData,
        geometry: Geometry,
        *,
        masks: bool = False,
        strong_views: int = 1,
        unimatch: bool = False,
        cutmix: float = 0.0,
        mark_padding: bool = False,
        **options,
    ):
        self.masks = [name for name, wanted in (("target", masks), ("padding", mark_padding)) if wanted]
        self.n_masks = len(self.masks)
        super().__init__(data.unlabelled, geometry, **options)
        self.data = data.without_samples()
        self.strong_views, self.unimatch, self.cutmix = strong_views, unimatch, cutmix
        if masks and not any(sample.label for sample in self.samples):
            raise UsageError(
                f"trainer.pseudo_label_quality: none of the {len(self):,} unlabelled images has a mask by which pseudo "
                "labels could be judged. Set it to false."
            )

    def _read(self, sample: Sample) -> tuple[np.ndarray, list[np.ndarray], tuple[int, int]]:
        image, size = self.data.read_sized(sample, self.geometry.largest_side)
        return image, [], size

    def _read_more(self, sample: Sample, size: tuple[int, int]) -> list[np.ndarray]:
        masks = [self._read_target(sample, size)] if "target" in self.masks else []
        return masks + [np.zeros(size, np.int16)] * ("padding" in self.masks)  # which the geometry pads with IGNORE

    def _read_target(self, sample: Sample, size: tuple[int, int]) -> np.ndarray:
        """The mask. One that cannot be used is an error also where bad samples are skipped: it must change no draw."""
        mask = np.full(size, IGNORE, np.int16) if sample.label is None else self.data.read_mask(sample.label)
        refuse_other_size(sample, mask, size, ", or set trainer.pseudo_label_quality to false")
        return mask

    def _item(self, sample: Sample, image: torch.Tensor, masks: list[np.ndarray], rng: np.random.Generator) -> dict:
        views = [draw_photometry(rng, strong=True, unimatch=self.unimatch) for _ in range(self.strong_views)]
        item: dict = {"id": sample.id, "image": image, "photometry": torch.from_numpy(np.stack(views))}
        if self.cutmix or self.strong_views > 1:
            boxes = [draw_box(rng, self.cutmix, self.geometry.crop_size) for _ in range(self.strong_views)]
            item["box"] = torch.from_numpy(np.stack(boxes))
        item |= zip(self.masks, map(_own_tensor, masks), strict=True)
        if "padding" in item:
            item["padding"] = item["padding"] == IGNORE
        return item


class EvaluationStream(Dataset):
    """Items: ``sample``; ``image`` uint8 (3, H', W'), reflect-padded at the right and the bottom to multiples
    of 8; ``target`` int16 (H, W)."""

    def __init__(self, data: SegmentationData, samples: Sequence[Sample]):
        self.data, self.samples = data.without_samples(), tuple(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        sample = self.samples[index]
        image, target = self.data.read_pair(sample)
        return {"sample": sample, "image": pad_to_multiple(_channels_first(image)), "target": torch.from_numpy(target)}


def _own_tensor(mask: np.ndarray) -> torch.Tensor:
    """The mask as a tensor that may be written to."""
    return torch.from_numpy(np.require(mask, requirements="W"))


def _channels_first(image: np.ndarray) -> torch.Tensor:
    channels = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(channels))  # ten times faster than a transposed copy
    return torch.from_numpy(channels)
