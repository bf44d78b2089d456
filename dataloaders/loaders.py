"""Which samples make a batch, and the loaders whose processes read them.

A training run takes draws 0, 1, 2, … from a stream. Which image a draw is follows from the seed, the stream and the
draw's number alone: a run that goes on at iteration t sees what an unbroken one would have seen, and the total batch
is the same on one process and on many.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from dataloaders.geometry import MULTIPLE
from dataloaders.images import image_size
from dataloaders.sets.description import Sample
from dataloaders.streams import LABELLED, UNLABELLED, EvaluationStream
from dataloaders.workers import WatchedLoader
from utils.errors import UsageError

_EMPTY = {
    LABELLED: "no labelled image is there to train on; n_labeled_examples and the split's list say which are.",
    UNLABELLED: "no unlabelled image is left for training; set n_labeled_examples below the size of the training pool.",
}
_SECTIONS = {LABELLED: "train_supervised", UNLABELLED: "train_unsupervised"}


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
            raise UsageError(_EMPTY[stream])
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


class SameSizeSampler(Sampler[list[int]]):
    """Batches of images of one padded size, of which each rank takes its share; none is taken twice.

    Other batches would change the result: the network's global pooling sees the padding.
    """

    def __init__(self, samples: Sequence[Sample], batch_size: int, *, rank: int = 0, world_size: int = 1):
        by_size: dict[tuple[int, int], list[int]] = {}
        if batch_size == 1:
            batches = [[index] for index in range(len(samples))]
        else:
            for index, sample in enumerate(samples):
                height, width = image_size(sample.mask)  # the image's
                padded = -(-height // MULTIPLE), -(-width // MULTIPLE)
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
    return WatchedLoader(
        dataset,
        section=_SECTIONS[sampler.stream],
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
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
    return WatchedLoader(
        dataset,
        section="val_loader",
        batch_sampler=SameSizeSampler(dataset.samples, batch_size, rank=rank, world_size=world_size),
        num_workers=num_workers,
        collate_fn=_collate_evaluation,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
    )


def _collate_evaluation(items: list[dict]) -> dict:
    return {
        "samples": [item["sample"] for item in items],
        "images": torch.stack([item["image"] for item in items]),
        "targets": [item["target"] for item in items],
    }
