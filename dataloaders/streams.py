"""The labelled, the unlabelled and the evaluation stream, written once for all data sets.

A training run takes draws 0, 1, 2, … from a stream. Which image a draw is and how it is augmented follow from
the seed, the stream and the draw's number alone: a run that goes on at iteration t sees what an unbroken one
would have seen, and the total batch is the same on one process and on many.
"""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from dataloaders.cache import SharedCache
from dataloaders.geometry import Geometry
from dataloaders.photometry import draw_photometry
from dataloaders.reading import image_size, read_image, read_pair, read_subclass_map
from dataloaders.sets.description import Sample
from utils.errors import UsageError

LABELLED, UNLABELLED = 0, 1
EVALUATION_MULTIPLE = 8


class DrawSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (sample index, draw number) for iterations ``start`` to ``iterations`` of one rank.

    Every n draws are a permutation of the n samples. A batch of all ranks together is ``batch_size`` draws in
    a row, of which each rank takes its equal share.
    """

    def __init__(self, n_samples: int, batch_size: int, iterations: int, *, seed: int, stream: int,
                 start: int = 0, rank: int = 0, world_size: int = 1):  # fmt: skip
        if batch_size % world_size:
            raise UsageError(
                f"batch_size {batch_size} cannot be shared equally by {world_size} processes; make it a multiple."
            )
        if n_samples == 0:
            raise UsageError(
                "no unlabelled image is left for training; set n_labeled_examples below the size of the training pool."
            )
        self.n_samples, self.batch_size, self.iterations = n_samples, batch_size, iterations
        self.seed, self.stream, self.start = seed, stream, start
        self.share = batch_size // world_size
        self.offset = rank * self.share

    def __len__(self) -> int:
        return self.iterations - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        turn, order = -1, np.empty(0, int)
        for iteration in range(self.start, self.iterations):
            first = iteration * self.batch_size + self.offset
            batch = []
            for draw in range(first, first + self.share):
                if draw // self.n_samples != turn:
                    turn = draw // self.n_samples
                    order = np.random.default_rng([self.seed, self.stream, 0, turn]).permutation(self.n_samples)
                batch.append((int(order[draw % self.n_samples]), draw))
            yield batch


class _TrainingStream(Dataset):
    """Items of training draws. With ``skip_bad``, a bad sample is replaced by another: which one follows from the seed
    and the draw's number, like everything else. ``bad`` of an item says of what it stands in for, a line each."""

    number: int
    n_masks: int

    def __init__(
        self,
        samples: tuple[Sample, ...],
        geometry: Geometry,
        *,
        seed: int,
        skip_bad: bool = False,
        cache_bytes: int = 0,
    ):
        self.samples, self.geometry, self.seed, self.skip_bad = samples, geometry, seed, skip_bad
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
                    arrays = self._read(sample)
                except UsageError as error:
                    if not self.skip_bad:
                        raise
                    bad.append(str(error))
                    continue
                arrays[1].extend(self._read_more(sample, arrays[0].shape[:2]))
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

    def _read(self, sample: Sample) -> tuple[np.ndarray, list[np.ndarray]]:
        """Image and masks of a sample, which may be a bad one."""
        raise NotImplementedError

    def _read_more(self, sample: Sample, size: tuple[int, int]) -> list[np.ndarray]:
        """Further masks, in which an error is no sample's fault."""
        return []

    def _item(self, sample: Sample, image: torch.Tensor, masks: list[np.ndarray], rng: np.random.Generator) -> dict:
        """What the training takes, of the augmented arrays."""
        raise NotImplementedError


class LabelledStream(_TrainingStream):
    """Items: ``id``; ``image`` uint8 (3, S, S); ``target`` and, where subclass maps are given, ``subclass``
    int16 (S, S); ``photometry`` (8,) where colour jitter is on; ``bad``."""

    number = LABELLED

    def __init__(
        self,
        samples: tuple[Sample, ...],
        geometry: Geometry,
        *,
        n_classes: int,
        ignore_index: int,
        seed: int,
        palette: np.ndarray | None = None,
        jitter: bool = False,
        skip_bad: bool = False,
        subclass_dir: Path | None = None,
        n_subclasses: int = 0,
        cache_bytes: int = 0,
    ):
        self.n_masks = 1 if subclass_dir is None else 2
        super().__init__(samples, geometry, seed=seed, skip_bad=skip_bad, cache_bytes=cache_bytes)
        self.n_classes, self.ignore_index, self.palette, self.jitter = n_classes, ignore_index, palette, jitter
        self.subclass_dir, self.n_subclasses = subclass_dir, n_subclasses

    def _read(self, sample: Sample) -> tuple[np.ndarray, list[np.ndarray]]:
        image, mask = read_pair(sample, self.n_classes, self.ignore_index, self.palette)
        return image, [mask]

    def _read_more(self, sample: Sample, size: tuple[int, int]) -> list[np.ndarray]:
        if self.subclass_dir is None:
            return []
        path = self.subclass_dir / sample.label.name
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
    """Items: ``id``; ``image`` uint8 (3, S, S), of which both views are made; ``photometry`` (8,) of the
    strong view; ``bad``. Masks are never opened."""

    number = UNLABELLED
    n_masks = 0

    def _read(self, sample: Sample) -> tuple[np.ndarray, list[np.ndarray]]:
        return read_image(sample.image, upright=True), []

    def _item(self, sample: Sample, image: torch.Tensor, masks: list[np.ndarray], rng: np.random.Generator) -> dict:
        return {"id": sample.id, "image": image, "photometry": torch.from_numpy(draw_photometry(rng, strong=True))}


class EvaluationStream(Dataset):
    """Items: ``sample``; ``image`` uint8 (3, H', W'), reflect-padded at the right and the bottom to multiples
    of 8; ``target`` int16 (H, W)."""

    def __init__(
        self, samples: tuple[Sample, ...], *, n_classes: int, ignore_index: int, palette: np.ndarray | None = None
    ):
        self.samples, self.n_classes, self.ignore_index, self.palette = samples, n_classes, ignore_index, palette

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        sample = self.samples[index]
        image, target = read_pair(sample, self.n_classes, self.ignore_index, self.palette)
        return {"sample": sample, "image": _channels_first(pad_to_multiple(image)), "target": torch.from_numpy(target)}


class SameSizeSampler(Sampler[list[int]]):
    """Batches of images of one padded size, of which each rank takes its share; none is taken twice.

    Other batches would change the result: the network's global pooling sees the padding.
    """

    def __init__(self, samples: tuple[Sample, ...], batch_size: int, *, rank: int = 0, world_size: int = 1):
        by_size: dict[tuple[int, int], list[int]] = {}
        if batch_size == 1:
            batches = [[index] for index in range(len(samples))]
        else:
            for index, sample in enumerate(samples):
                height, width = image_size(sample.label)  # the image's once it is upright
                padded = -(-height // EVALUATION_MULTIPLE), -(-width // EVALUATION_MULTIPLE)
                by_size.setdefault(padded, []).append(index)
            batches = [
                group[at : at + batch_size] for group in by_size.values() for at in range(0, len(group), batch_size)
            ]
        self.batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def training_loader(dataset: Dataset, sampler: DrawSampler, num_workers: int, *, pin_memory: bool) -> DataLoader:
    """A loader for a whole run: its workers start once."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker if num_workers else None,
        prefetch_factor=4 if num_workers else None,
    )


def evaluation_loader(
    dataset: EvaluationStream,
    batch_size: int,
    num_workers: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches: ``samples`` and ``targets`` are lists, ``images`` uint8 (N, 3, H', W')."""
    return DataLoader(
        dataset,
        batch_sampler=SameSizeSampler(dataset.samples, batch_size, rank=rank, world_size=world_size),
        num_workers=num_workers,
        collate_fn=_collate_evaluation,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker if num_workers else None,
        persistent_workers=num_workers > 0,
    )


def _collate_evaluation(items: list[dict]) -> dict:
    return {
        "samples": [item["sample"] for item in items],
        "images": torch.stack([item["image"] for item in items]),
        "targets": [item["target"] for item in items],
    }


def pad_to_multiple(image: np.ndarray) -> np.ndarray:
    """A whole image (H, W, 3) as the network takes it: reflected at the right and the bottom to multiples of 8."""
    bottom, right = (-side % EVALUATION_MULTIPLE for side in image.shape[:2])
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="reflect")


def _begin_worker(_: int) -> None:
    # A terminal or a cluster that asks for a stop asks every process: the workers go on until the one that they work
    # for has put its work down. They obey only that one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_parent_says_so, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_when_the_parent_says_so(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _own_tensor(mask: np.ndarray) -> torch.Tensor:
    """The mask as a tensor that may be written to."""
    return torch.from_numpy(np.require(mask, requirements="W"))


def _channels_first(image: np.ndarray) -> torch.Tensor:
    channels = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(channels))  # ten times faster than a transposed copy
    return torch.from_numpy(channels)
