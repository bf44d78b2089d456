"""Settings for a data set that nobody has tuned: what one GPU, or a laptop without one, can train in hours."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from trainer.evaluation.recommendation import FROM_BASELINE


@dataclass(frozen=True)
class Decision:
    """Keys of a configuration that were decided together.

    Attributes
    ----------
    settings
        Their values, by key (``trainer.epochs``).
    reason
        Why, in a line.
    """

    settings: dict[str, Any]
    reason: str

    @property
    def keys(self) -> str:
        return ", ".join(self.settings)

    def __str__(self) -> str:
        values = ", ".join(f"{key} {json.dumps(value)}" for key, value in self.settings.items())
        return f"{values}: {self.reason}"


def as_configuration(decisions: Iterable[Decision]) -> dict[str, Any]:
    """The sections of a configuration that has the decided values."""
    sections: dict[str, Any] = {}
    for decision in decisions:
        for key, value in decision.settings.items():
            *names, last = key.split(".")
            section = sections
            for name in names:
                section = section.setdefault(name, {})
            section[last] = value
    return sections


@dataclass(frozen=True)
class Machine:
    """What a kind of machine can bear.

    Attributes
    ----------
    imagenet
        Whether it trains the published network, for which there are ImageNet weights.
    network, rate
        The network and its learning rate.
    max_crop, max_batch
        Side of a crop in pixels; images of a stream in a batch.
    batch_pixels
        Pixels of a stream's batch, within which larger crops mean smaller batches.
    iterations
        About as many, for the baseline and for USRN.
    workers
        Data-loading processes of a stream.
    """

    imagenet: bool
    network: Decision
    rate: Decision
    max_crop: int
    max_batch: int
    batch_pixels: int
    iterations: int
    workers: Decision


def _workers(stream: int, validation: int, reason: str) -> Decision:
    """Data-loading processes of each stream, and of validation."""
    of_streams = dict.fromkeys(("train_supervised.num_workers", "train_unsupervised.num_workers"), stream)
    return Decision({**of_streams, "val_loader.num_workers": validation}, reason)


MACHINES = {
    # The published network and VOC's batch of 8 + 8 crops of 320; Cityscapes' crop where images are large.
    "cuda": Machine(
        imagenet=True,
        network=Decision({"model.layers": 50}, "the published network, which a GPU trains in hours"),
        rate=Decision({"optimizer.args.lr": 0.01}, "the published one for PASCAL VOC"),
        max_crop=720,
        max_batch=8,
        batch_pixels=8 * 320 * 320,
        iterations=20_000,
        workers=_workers(4, 2, "processes that load images, so that a GPU does not wait for them"),
    ),
    # The small network of the demo and CamVid, from random weights, which two cores train in minutes.
    "cpu": Machine(
        imagenet=False,
        network=Decision(
            {"model.layers": 14, "model.base_width": 24, "model.out_dim": 48},
            "no GPU: a network so small that two cores train it in minutes",
        ),
        rate=Decision(
            {"optimizer.args.lr": 0.05}, "that of our studies with this network (docs/results.md, camvid_1over8)"
        ),
        max_crop=128,
        max_batch=4,
        batch_pixels=4 * 128 * 128,
        iterations=2_000,
        workers=_workers(1, 0, "processes that load images; few, since the cores are needed to train"),
    ),
}
VALIDATIONS = 20
WHOLE_IMAGES_PIXELS = 1_000_000  # of an image, up to which validation takes several at once


def propose(
    sizes: Sequence[tuple[int, int]], n_labelled: int, n_unlabelled: int, machine: Machine, *, imagenet: bool = True
) -> list[Decision]:
    """What the two configurations of a data set share, but for its name and place.

    Parameters
    ----------
    sizes
        (H, W) of all images.
    imagenet
        Whether ImageNet weights are to be had.
    """
    long_side = max(8, round(median(max(size) for size in sizes)))
    crop = min(machine.max_crop, max(32, long_side * 2 // 3 // 16 * 16))
    batch = max(2, min(machine.max_batch, machine.batch_pixels // crop**2, n_labelled))
    pool = n_labelled + n_unlabelled
    multiple = max(1, pool // n_labelled)
    epochs = max(1, round(machine.iterations / (multiple * max(1, n_labelled // batch))))
    every = max(1, epochs * multiple // VALIDATIONS)
    together = len(set(sizes)) == 1 and sizes[0][0] * sizes[0][1] <= WHOLE_IMAGES_PIXELS
    return [
        Decision(
            {"num_images_all": pool, "n_labeled_examples": n_labelled},
            "counted: the images that training sees, and those of them whose masks it sees",
        ),
        machine.network,
        *_start(machine, imagenet, epochs * multiple // 2),
        machine.rate,
        _of_streams(
            "base_size", long_side, "the median long side of the images: training sees them as validation does"
        ),
        _of_streams("crop_size", crop, f"two thirds of the base size in steps of 16, 32 to {machine.max_crop}"),
        _of_streams(
            "batch_size",
            batch,
            f"as many crops as have {machine.batch_pixels:,} pixels, 2 to {machine.max_batch}, and no more than there "
            "are labelled images",
        ),
        machine.workers,
        Decision(
            {"val_loader.batch_size": 4 if together else 1},
            "the images have one size, so that several are validated at once"
            if together
            else "the images are large or differ in size, so that one at a time is validated",
        ),
        Decision(
            {"trainer.epochs": epochs},
            f"about {machine.iterations:,} iterations of each training, or one pass through all images; it is "
            "multiplied by floor(num_images_all / n_labeled_examples)",
        ),
        Decision(
            {"trainer.val_per_epochs": every, "trainer.save_period": every},
            f"about {VALIDATIONS} validations, and a checkpoint as often",
        ),
    ]


def _of_streams(key: str, value: int, reason: str) -> Decision:
    return Decision({f"{stream}.{key}": value for stream in ("train_supervised", "train_unsupervised")}, reason)


def _start(machine: Machine, imagenet: bool, half_time: int) -> list[Decision]:
    """The weights that training starts from, and what follows from them."""
    if machine.imagenet and imagenet:
        return [
            Decision(
                {"pretrained": True},
                "ImageNet weights for the published network, fetched into pretrained/ where they are missing",
            ),
            Decision({"diff_lrs": True}, "the trained weights get a tenth of the learning rate, as published"),
        ]
    if machine.imagenet:
        weights = (
            "ImageNet weights are not in pretrained/ and their server does not answer. Random ones need more labels "
            "or iterations for a score: put resnet50-19c8e357.pth there (pretrained/README.md) and call again"
        )
    else:
        weights = (
            "nobody has trained this network before, so it starts from random weights; weights of another training "
            'take their place with "pretrained": a file (pretrained/README.md)'
        )
    return [
        Decision({"pretrained": False}, weights),
        Decision({"diff_lrs": False}, "one learning rate for all weights, since none are trained yet"),
        Decision(
            {"model.epoch_start_unsup": half_time},
            "the unlabelled images join at half-time: pseudo labels of a network that nobody trained before are few, "
            "and leave out rare classes (docs/results.md, camvid_1over8)",
        ),
    ]


def propose_start(settings: dict[str, Any]) -> list[Decision]:
    """What USRN starts from, where it is not what its baseline, with these settings, starts from."""
    if settings["pretrained"]:
        return []
    reason = f"without trained weights USRN starts from its baseline: {FROM_BASELINE}"
    return [Decision({"pretrained": "baseline"}, reason)]
