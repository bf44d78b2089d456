"""Settings for a data set that nobody has tuned: what one GPU, or a laptop without one, can train in hours."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from trainer.evaluation.recommendation import FROM_BASELINE


@dataclass(frozen=True)
class Machine:
    """What a kind of machine can bear.

    Attributes
    ----------
    settings
        Keys of the configuration that follow from the machine alone.
    max_crop, max_batch
        Side of a crop in pixels; images of a stream in a batch.
    batch_pixels
        Pixels of a stream's batch, within which larger crops mean smaller batches.
    iterations
        About as many, for the baseline and for USRN.
    workers
        Data-loading processes of a stream.
    """

    settings: dict[str, Any]
    max_crop: int
    max_batch: int
    batch_pixels: int
    iterations: int
    workers: int


MACHINES = {
    # The published network and VOC's batch of 8 + 8 crops of 320; Cityscapes' crop where images are large.
    "cuda": Machine(
        settings={"pretrained": True, "diff_lrs": True, "optimizer": {"args": {"lr": 0.01}}},
        max_crop=720,
        max_batch=8,
        batch_pixels=8 * 320 * 320,
        iterations=20_000,
        workers=4,
    ),
    # The small network of the demo and CamVid, from random weights, which two cores train in minutes.
    "cpu": Machine(
        settings={
            "pretrained": False,
            "diff_lrs": False,
            "model": {"layers": 14, "base_width": 24, "out_dim": 48},
            "optimizer": {"args": {"lr": 0.05}},
        },
        max_crop=128,
        max_batch=4,
        batch_pixels=4 * 128 * 128,
        iterations=2_000,
        workers=1,
    ),
}
VALIDATIONS = 20
WHOLE_IMAGES_PIXELS = 1_000_000  # of an image, up to which validation takes several at once


def reasons(settings: dict[str, Any], machine: Machine) -> dict[str, str]:
    """Why the settings that ``propose_settings`` gives are as they are, in a line each, by key."""
    if settings["pretrained"]:
        start = "ImageNet weights for the published network, fetched into pretrained/ where they are missing"
    elif machine.settings["pretrained"]:
        start = (
            "ImageNet weights are not in pretrained/ and their server does not answer. Random ones need more labels "
            "or iterations for a score: put resnet50-19c8e357.pth there (pretrained/README.md) and call again"
        )
    else:
        start = (
            "no GPU: a network small enough for one, which nobody has trained before; weights of another training take "
            'the place of random ones with "pretrained": a file (pretrained/README.md)'
        )
    found = {
        "pretrained": start,
        "train_supervised.base_size": "the median long side of the images: training sees them as validation does",
        "train_supervised.crop_size": f"two thirds of the base size in steps of 16, {machine.max_crop} at most",
        "train_supervised.batch_size": f"as many crops as have {machine.batch_pixels:,} pixels, {machine.max_batch} at "
        "most, and no more than there are labelled images",
        "trainer.epochs": f"about {machine.iterations:,} iterations of each training, or one pass through all images",
        "trainer.val_per_epochs": f"about {VALIDATIONS} validations",
    }
    if not settings["pretrained"]:
        found["model.epoch_start_unsup"] = (
            "the unlabelled images join at half-time: pseudo labels of a network that nobody trained before are few, "
            "and leave out rare classes (docs/results.md, camvid_1over8)"
        )
    if settings["val_loader"]["batch_size"] > 1:
        found["val_loader.batch_size"] = "the images have one size, so that several are validated at once"
    return found


def propose_start(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What USRN starts from, unless it is what its baseline starts from: keys of its own configuration, and reasons."""
    if settings["pretrained"]:
        return {}, {}
    reason = f"without trained weights USRN starts from its baseline, than which it was then {FROM_BASELINE}"
    return {"pretrained": "baseline"}, {"pretrained": reason}


def propose_settings(
    sizes: Sequence[tuple[int, int]], n_labelled: int, n_unlabelled: int, machine: Machine, *, imagenet: bool = True
) -> dict[str, Any]:
    """The keys that the two configurations of a data set share, without its name and place.

    ``sizes`` are (H, W) of all images. The base size is their median long side, so that training sees them as
    validation does; the crop two thirds of it, in steps of 16. ``imagenet`` is whether ImageNet weights are to be had.
    """
    long_side = max(8, round(median(max(size) for size in sizes)))
    crop = min(machine.max_crop, max(32, long_side * 2 // 3 // 16 * 16))
    batch = max(2, min(machine.max_batch, machine.batch_pixels // crop**2, n_labelled))
    stream = {"crop_size": crop, "base_size": long_side, "batch_size": batch, "num_workers": machine.workers}

    pool = n_labelled + n_unlabelled
    multiple = max(1, pool // n_labelled)
    per_epoch = max(1, n_labelled // batch)
    epochs = max(1, round(machine.iterations / (multiple * per_epoch)))
    every = max(1, epochs * multiple // VALIDATIONS)
    model = dict(machine.settings.get("model", {}))
    pretrained = machine.settings["pretrained"] and imagenet
    if not pretrained:
        model["epoch_start_unsup"] = epochs * multiple // 2
    together = len(set(sizes)) == 1 and sizes[0][0] * sizes[0][1] <= WHOLE_IMAGES_PIXELS
    return {
        "num_images_all": pool,
        "n_labeled_examples": n_labelled,
        **machine.settings,
        "pretrained": pretrained,
        "diff_lrs": pretrained,
        **({"model": model} if model else {}),
        "train_supervised": stream,
        "train_unsupervised": stream,
        "val_loader": {"batch_size": 4 if together else 1, "num_workers": machine.workers // 2},
        "trainer": {"epochs": epochs, "val_per_epochs": every, "save_period": every},
    }
