"""How much faster is an epoch with its validation than the original's way, and does host memory grow?

    python -m benchmarks.end_to_end                         # small on the CPU, VOC's setting on a GPU
    python -m benchmarks.end_to_end --memory                # resident memory after 50 and after 500 iterations

Each way runs from its first worker to the end of its validation. The original's way starts workers anew for every
epoch, does colour work in them, image by image in float32, and trains and validates as ``benchmarks.original`` does;
files are read and cropped as this code does it, so the ratio is no larger than it would be against the original itself
(``benchmarks.data`` measures that part). Prints a table and, last, one JSON line.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.comparing import COUNTS, in_turn, make_data, parser, report, start  # noqa: E402
from benchmarks.original import OriginalStep, validate  # noqa: E402
from dataloaders import open_data  # noqa: E402
from dataloaders.photometry import apply_photometry, normalise, to_unit  # noqa: E402
from models.execution import DTYPES, choose_precision  # noqa: E402
from trainer.loop.trainer import Trainer  # noqa: E402
from utils.config import Config  # noqa: E402

CPU_MODEL = {"layers": 14, "base_width": 24, "out_dim": 32}


class ColourInWorkers(Dataset):
    """A stream whose items are what the original's workers hand over: normalised float32 images, both views made."""

    def __init__(self, stream: Dataset):
        self.stream = stream

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, key: object) -> dict[str, torch.Tensor]:
        item = self.stream[key]
        image = to_unit(item["image"][None])
        if "photometry" in item:
            strong = apply_photometry(image, item["photometry"][None])
            return {"u_weak": normalise(image)[0], "u_strong": normalise(strong)[0]}
        if "sample" in item:
            return {"image": normalise(image)[0], "target": item["target"]}
        return {"x": normalise(image)[0], "y": item["target"], "s": item["subclass"]}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--images", type=int, help="labelled ones; half as many are validated (default: 64; 320)")
    arguments.add_argument("--workers", type=int, help="of each stream; default: 1 on the CPU, 6 on a GPU")
    arguments.add_argument("--precision", choices=("auto", *DTYPES), default="auto")
    arguments.add_argument("--memory", action="store_true", help="only host memory, over 500 iterations")
    options = arguments.parse_args()
    device = start(options)
    cuda = device.type == "cuda"
    images = options.images or (320 if cuda else 64)
    workers = (6 if cuda else 1) if options.workers is None else options.workers

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        size, crop, batch = ((375, 500), 320, 8) if cuda else ((128, 160), 96, 4)
        config = make_data(Path(folder), 2 * images, images // 2, size, crop, batch, workers, options.precision,
                           **({} if cuda else CPU_MODEL))  # fmt: skip
        if options.memory:
            rows, more = _memory(config, device)
            what = "host memory of training"
        else:
            rows, more = _epochs(config, device, options), {}
            what = f"epoch of {images // batch} iterations and validation of {images // 2} images, {workers} workers"
    report(what, device, rows, **more)


def _epochs(config: Config, device: torch.device, options: argparse.Namespace) -> list[dict]:
    data = open_data(config)
    kept = Trainer(config, data, device)  # streams, network and loaders' settings for the original's way
    step = OriginalStep(kept.network, kept.step.class_of_subclass, len(COUNTS))

    def original() -> None:
        loaders = [_anew(kept.batches.labelled), _anew(kept.batches.unlabelled)]
        step.network.train()
        for labelled, unlabelled in zip(*loaders, strict=True):
            batch = labelled | unlabelled
            step({name: values.to(device, non_blocking=True) for name, values in batch.items()})
        validation = DataLoader(
            ColourInWorkers(kept.validation.dataset),
            batch_size=None,
            num_workers=kept.validation.num_workers,
            pin_memory=kept.validation.pin_memory,
        )
        validate(step.network, ((item["image"], item["target"]) for item in validation), len(COUNTS))

    def ours() -> None:
        trainer = Trainer(config, data, device)
        trainer._save = trainer._write = lambda *_, **__: None  # the original's way above saves nothing either
        trainer.train()

    ways = {"the original's": original, f"this code, {choose_precision(options.precision, device)}": ours}
    return in_turn(ways, options.rounds, device)


def _anew(loader: DataLoader) -> DataLoader:
    """A loader of the same batches with workers of its own and colour work in them."""
    return DataLoader(
        ColourInWorkers(loader.dataset),
        batch_sampler=loader.batch_sampler,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
    )


def _memory(config: Config, device: torch.device) -> tuple[list[dict], dict]:
    settings = {"trainer": config.trainer.model_copy(update={"epochs": -(-500 // _iterations(config))})}
    trainer = Trainer(config.model_copy(update=settings), open_data(config), device)
    trainer.step.train()
    rows = []
    for number, batch in zip(range(1, 501), trainer.batches, strict=False):
        trainer._iterate(batch)
        if number in (50, 100, 200, 300, 400, 500):
            rows.append({"iterations": str(number), "resident_gb": _resident() / 1e9})
    return rows, {"growth_percent": 100 * (rows[-1]["resident_gb"] / rows[0]["resident_gb"] - 1)}


def _iterations(config: Config) -> int:
    return config.n_labeled_examples // config.train_supervised.batch_size


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
