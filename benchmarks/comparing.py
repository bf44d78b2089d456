"""What the benchmarks of speed share: options, a data set, two ways in turn, the device's peaks, the table."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from trainer.subclasses.table import TABLE
from utils.config import Config
from utils.distributed import choose_device

COUNTS = [121, 2, 1, 1, 1, 1, 3, 3, 6, 3, 1, 2, 6, 2, 2, 15, 1, 1, 2, 2, 1]  # K_c of VOC 1/32
Row = dict[str, object]


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every benchmark of speed has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--rounds", type=int, default=5, help="each way so many times, in turn")
    return parser


def start(options: argparse.Namespace) -> torch.device:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    return torch.device(choose_device(options.device))


def make_data(root: Path, n_train: int, n_val: int, size: tuple[int, int], crop: int, batch: int, workers: int,
              precision: str, execution: dict[str, bool] | None = None, **model: int) -> Config:  # fmt: skip
    """Write a data set of VOC's 21 classes and 177 subclasses below ``root``; a run's configuration on it.

    Images are JPEGs of ``size`` (height, width), all of ``n_train`` with masks; half of them are labelled.
    ``execution``: settings of ``trainer``.
    """
    rng = np.random.default_rng(0)
    voc, maps = root / "VOCdevkit" / "VOC2012", root / "saved" / "speed_baseline" / "label_subcls_balanced_kmeans"
    lists = voc / "ImageSets" / "Segmentation"
    folders = (voc / "JPEGImages", voc / "SegmentationClass", lists, maps)
    for folder in folders:
        folder.mkdir(parents=True)
    first = np.cumsum([0, *COUNTS[:-1]])
    for split, count in (("train", n_train), ("val", n_val)):
        ids = [f"{split}_{number:04d}" for number in range(count)]
        for name in ids:
            image = cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
            mask = cv2.resize(rng.integers(0, 21, (9, 9), np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
            Image.fromarray(image).save(voc / "JPEGImages" / f"{name}.jpg", quality=95)
            Image.fromarray(mask).save(voc / "SegmentationClass" / f"{name}.png")
            Image.fromarray(first.astype(np.uint8)[mask]).save(maps / f"{name}.png")
        (lists / f"{split}.txt").write_text("\n".join(ids) + "\n")
    classes = [f"class{number}" for number in range(len(COUNTS))]
    (voc / "classes.txt").write_text("\n".join(classes) + "\n")
    table = {"classes": classes, "counts": COUNTS, "sizes": [], "inertia": [], "algorithm": "", "seed": 0, "source": ""}
    (maps / TABLE).write_text(json.dumps(table))

    stream = {"batch_size": batch, "crop_size": crop, "base_size": max(size), "num_workers": workers}
    return Config.model_validate(
        {
            "name": "USRN",
            "experim_name": "speed_usrn",
            "dataset": "custom",
            "data_dir": str(root),
            "n_labeled_examples": n_train // 2,
            "num_images_all": n_train // 2,
            "pretrained": False,
            "model": model,
            "train_supervised": stream,
            "train_unsupervised": stream,
            "val_loader": {"batch_size": batch, "num_workers": min(workers, 1)},
            "trainer": {
                "epochs": 1,
                "save_dir": f"{root}/saved",
                "log_dir": f"{root}/saved",
                "precision": precision,
                "tensorboardX": False,
                **(execution or {}),
            },
        }
    )


def in_turn(ways: dict[str, Callable[[], object]], rounds: int, device: torch.device, calls: int = 1) -> list[Row]:
    """Time each way ``rounds`` times, one after the other, after one round of warming up: medians in seconds of a call.

    A round is so many ``calls``, at whose end a GPU is waited for. Beside the wall time there is the processor time of
    all threads, which depends less on what else the machine does; on a GPU, the most memory that a round took above
    what was held before it (networks, momentum). Ratios are those of the first way to each.
    """
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    peak: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            seconds, of_processor = time.perf_counter(), time.process_time()
            for _ in range(calls):
                way()
            if device.type == "cuda":
                torch.cuda.synchronize()
                peak[name] = max(peak.get(name, 0), torch.cuda.max_memory_allocated() - held)
            if turn:
                wall[name].append((time.perf_counter() - seconds) / calls)
                processor[name].append((time.process_time() - of_processor) / calls)
    rows = []
    for name in ways:
        row = {"way": name, "wall_s": statistics.median(wall[name])}
        if device.type == "cpu":
            row["cpu_s"] = statistics.median(processor[name])
        else:
            row["peak_gb"] = peak[name] / 1e9
        rows.append(row)
    for key, of in (("ratio", "wall_s"), ("ratio_cpu", "cpu_s"), ("ratio_peak", "peak_gb")):
        for row in rows:
            if of in row:
                row[key] = rows[0][of] / max(row[of], 1e-9)
    return rows


def peaks(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """What the device reaches here and now: operations a second in ``dtype`` (the better of a large matrix product
    and a large convolution), bytes a second of a copy, read and written both counted."""
    large = 8192 if device.type == "cuda" else 2048
    a = torch.randn(large, large, device=device, dtype=dtype)
    images = torch.randn(large // 256, 256, 32, 32, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    values = torch.empty(2**26 if device.type == "cpu" else 2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(values)
    per_convolution = 2 * images.shape[0] * 32 * 32 * 256 * 256 * 9
    product = _fastest(lambda: a @ a, device)
    convolution = _fastest(lambda: torch.nn.functional.conv2d(images, weight, padding=1), device)
    copy = _fastest(lambda: target.copy_(values), device)
    return max(2 * large**3 / product, per_convolution / convolution), 2 * values.numel() / copy


def _fastest(way: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(8):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        way()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


def report(what: str, device: torch.device, rows: list[Row], **more: object) -> None:
    """The table, then what else there is, then all of it as one JSON line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"\n{what}, {name}, PyTorch {torch.__version__}")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [keys, *([_shown(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(keys))]
    for line in lines:
        print("  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]))
    for key, value in more.items():
        print(f"{key}: {_shown(value)}")
    print(json.dumps({"what": what, "device": name, "torch": torch.__version__, "rows": rows, **more}))


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
