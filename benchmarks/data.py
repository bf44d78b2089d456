"""Time of the training streams against the original's way, per image and core; prints a table and, last, one JSON line.

    python -m benchmarks.data                         # PASCAL VOC, Cityscapes and phones, on images that it makes
    python -m benchmarks.data --settings voc          # one of them
    python -m benchmarks.data --device cuda           # the photometry on a GPU

One thread does all the work and its processor time is counted, both ways in turns. "worker" is what a data-loading
process does for an image, from the files to its place in the batch. In the original's way that is everything. Here the
photometry (strong view, colour jitter, normalisation) is done for a batch on the training device: with a GPU the
processor's part is "worker" alone, without one "worker + photometry". "city, uncompressed" reads the files as
`python3 -m dataloaders.prepare cityscapes` stores them; the original's way reads the published ones. "in memory" is a
stream that fits into `data.cache_gb`, after its first turn: by default all labelled images of the published VOC runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import default_collate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.original_streams import OriginalStream  # noqa: E402
from dataloaders.geometry import LABELLED_SCALES, UNLABELLED_SCALES, Geometry  # noqa: E402
from dataloaders.photometry import apply_photometry, normalise, to_unit  # noqa: E402
from dataloaders.prepare.pictures import uncompressed_png  # noqa: E402
from dataloaders.sets.description import Sample, SegmentationData  # noqa: E402
from dataloaders.streams import LabelledStream, UnlabelledStream  # noqa: E402
from utils.palette import mask_image, voc_palette  # noqa: E402

N_CLASSES, N_SUBCLASSES = 19, 170
STREAMS = ("labelled", "unlabelled")


@dataclass(frozen=True)
class Setting:
    """A published run's files and streams; ``bars`` are the ratios that are wanted, labelled and unlabelled."""

    name: str
    size: tuple[int, int]
    base_size: int
    crop_size: int
    batch_size: int
    jitter: bool
    n_images: int
    bars: tuple[int, int]


SETTINGS = {
    "voc": Setting("voc", (375, 500), 400, 320, 8, jitter=False, n_images=32, bars=(3, 4)),
    "city": Setting("city", (1024, 2048), 2048, 720, 4, jitter=True, n_images=4, bars=(6, 6)),
    "phone": Setting("phone", (3000, 4000), 400, 320, 4, jitter=False, n_images=4, bars=(5, 5)),
}


# --- files -----------------------------------------------------------------------------------------------


def make_files(folder: Path, setting: Setting) -> tuple[Sample, ...]:
    """Images cut from two photographs, masks with regions of every size, and subclass maps in ``folder/subclasses``.

    VOC's are JPEGs of about 75 kB with palette masks, Cityscapes' PNGs of about 2.3 MB with gray ones, a phone's JPEGs
    of 12 megapixels with palette masks.
    """
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    height, width = setting.size
    (folder / "subclasses").mkdir()
    samples = []
    for number in range(setting.n_images):
        photograph = photographs[number % 2]
        if setting.name == "voc":
            top, left = (int(rng.integers(photograph.shape[axis] - setting.size[axis] + 1)) for axis in (0, 1))
            image, path = photograph[top : top + height, left : left + width], folder / f"{number}.jpg"
            Image.fromarray(image).save(path, quality=94)
        else:
            scale = rng.uniform(3.2, 3.4) * (1 if setting.name == "city" else 2.2)
            large = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            top, left = (int(rng.integers(large.shape[axis] - setting.size[axis] + 1)) for axis in (0, 1))
            suffix = "png" if setting.name == "city" else "jpg"
            image, path = large[top : top + height, left : left + width], folder / f"{number}.{suffix}"
            Image.fromarray(image).save(path, quality=92)
        coarse = rng.normal(size=(height // 94, width // 94)).astype(np.float32)
        regions = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        mask = np.digitize(regions, np.linspace(-2, 2, N_CLASSES - 1)).astype(np.uint8)
        mask[regions > 2.2] = 255
        label = folder / f"{number}_mask.png"
        if setting.name != "city":
            mask_image(mask, voc_palette()).save(label)
        else:
            Image.fromarray(mask).save(label)
        subclasses = cv2.resize(mask, (width // 8, height // 8), interpolation=cv2.INTER_NEAREST)
        subclasses[subclasses < 255] *= (N_SUBCLASSES - 1) // N_CLASSES
        subclasses = cv2.resize(subclasses, (width, height), interpolation=cv2.INTER_NEAREST)
        mask_image(subclasses, voc_palette()).save(folder / "subclasses" / label.name)  # as stage 3 does
        samples.append(Sample(str(number), path, label))
    return tuple(samples)


def uncompress(samples: tuple[Sample, ...], folder: Path) -> tuple[Sample, ...]:
    """Images and masks stored without compression in ``folder``."""
    folder.mkdir()
    for sample in samples:
        for path in (sample.image, sample.label):
            (folder / path.name).write_bytes(uncompressed_png(path))
    return tuple(Sample(sample.id, folder / sample.image.name, folder / sample.label.name) for sample in samples)


# --- this code's way -------------------------------------------------------------------------------------


def our_stream(samples: tuple[Sample, ...], setting: Setting, stream: str, subclass_dir: Path, cache_bytes: int):
    """The stream as ``trainer/loop/batches.py`` builds it for stage 4."""
    scales = LABELLED_SCALES if stream == "labelled" else UNLABELLED_SCALES
    geometry = Geometry(setting.crop_size, setting.base_size, scales, flip=True, rotate=False, blur=False)
    classes = tuple(map(str, range(N_CLASSES)))
    data = SegmentationData(classes, voc_palette(), samples, samples, (), ignore_index=255)
    if stream == "unlabelled":
        return UnlabelledStream(data, geometry, seed=0, cache_bytes=cache_bytes)
    return LabelledStream(
        data,
        geometry,
        seed=0,
        jitter=setting.jitter,
        subclass_dir=subclass_dir,
        n_subclasses=N_SUBCLASSES,
        cache_bytes=cache_bytes,
    )


def photometry(batch: dict, device: torch.device) -> None:
    """What ``trainer/loop/batches.py`` does with a batch on the device."""
    images = to_unit(batch["image"].to(device))
    if "target" not in batch:
        normalise(images)
    if "photometry" in batch:
        images = apply_photometry(images, batch["photometry"])
    normalise(images)


# --- measurement -----------------------------------------------------------------------------------------


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Processor time of ``work``; on a GPU the time until it is done."""
    if device.type != "cuda":
        start = time.process_time()
        work()
        return 1e3 * (time.process_time() - start)
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def measure(
    name: str,
    setting: Setting,
    stream: str,
    samples: tuple[Sample, ...],
    our_samples: tuple[Sample, ...],
    subclass_dir: Path,
    cache_bytes: int,
    turns: int,
    device: torch.device,
) -> dict:
    """Milliseconds per image of both ways, means over ``turns`` turns of the two."""
    scales = LABELLED_SCALES if stream == "labelled" else UNLABELLED_SCALES
    originals = OriginalStream(
        samples,
        base_size=setting.base_size,
        crop_size=setting.crop_size,
        scales=scales,
        jitter=setting.jitter,
        subclass_dir=subclass_dir,
    )
    original = getattr(originals, stream)
    ours = our_stream(our_samples, setting, stream, subclass_dir, cache_bytes)
    n = setting.n_images
    draws = count()

    def batches(item: Callable[[tuple[int, int]], dict]) -> list[dict]:
        size = setting.batch_size
        return [
            default_collate([item((number, next(draws))) for number in range(at, at + size)])
            for at in range(0, n, size)
        ]

    cpu = torch.device("cpu")
    times = {"original": 0.0, "worker": 0.0, "photometry": 0.0}
    for turn in range(turns + 1):
        if turn == 1:  # the first one warmed up
            times = dict.fromkeys(times, 0.0)
        made: list[dict] = []
        times["original"] += milliseconds(lambda: batches(original), cpu)
        times["worker"] += milliseconds(lambda made=made: made.extend(batches(ours.__getitem__)), cpu)
        times["photometry"] += milliseconds(lambda made=made: [photometry(batch, device) for batch in made], device)
    per_image = {way: total / turns / n for way, total in times.items()}
    row: dict = {"setting": name, "stream": stream}
    row |= {f"{way}_ms": value for way, value in per_image.items()}
    row["images_per_s_original"], row["images_per_s"] = 1e3 / per_image["original"], 1e3 / per_image["worker"]
    row["ratio"] = per_image["original"] / per_image["worker"]
    if device.type != "cuda":
        row["ratio_with_photometry"] = per_image["original"] / (per_image["worker"] + per_image["photometry"])
    row["bar"] = setting.bars[STREAMS.index(stream)]
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}


def print_table(rows: list[dict], device: torch.device) -> None:
    """A column per stream; the lines say what was counted."""
    names = {
        "setting": "",
        "stream": "",
        "original_ms": "original: worker, ms",
        "worker_ms": "ours: worker, ms",
        "photometry_ms": f"ours: photometry on {device.type}, ms",
        "images_per_s_original": "original: images/s and core",
        "images_per_s": "ours: images/s and core, worker",
        "ratio": "ratio, worker",
        "ratio_with_photometry": "ratio, worker + photometry",
        "bar": "bar, worker",
    }
    for key in (key for key in names if key in rows[0]):
        print(f"{names[key]:32}" + "".join(f"{row[key]!s:>20}" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="sizes (both)")
    parser.add_argument("--turns", type=int, default=8, help="turns of both ways (8)")
    parser.add_argument("--device", default="cpu", help="where the photometry is done: cpu or cuda (cpu)")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    device = torch.device(arguments.device)

    rows, files = [], {}
    for name in arguments.settings:
        setting = SETTINGS[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            samples = make_files(folder, setting)
            files[name] = round(np.mean([sample.image.stat().st_size for sample in samples]) / 1e3)
            variants = {name: (samples, 0), f"{name}, in memory": (samples, 10**9)}
            if name == "city":
                variants["city, uncompressed"] = uncompress(samples, folder / "uncompressed"), 0
            for variant, (our_samples, cache_bytes) in variants.items():
                for stream in STREAMS:
                    row = measure(
                        variant, setting, stream, samples, our_samples, folder / "subclasses", cache_bytes,
                        arguments.turns, device,
                    )  # fmt: skip
                    rows.append(row)
    print_table(rows, device)
    print(json.dumps({"torch": torch.__version__, "opencv": cv2.__version__, "image_kb": files, "rows": rows}))


if __name__ == "__main__":
    main()
