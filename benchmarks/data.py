"""Time of the training streams against the original's way, per image and core; prints a table and, last, one JSON line.

    python -m benchmarks.data                         # PASCAL VOC and Cityscapes size, on images that it makes
    python -m benchmarks.data --settings voc          # one of them
    python -m benchmarks.data --device cuda           # the batched photometry's time on the GPU as well

One thread does all the work and its processor time is counted, both ways in turns. "worker" is what a data-loading
process does for an image, from the files to its place in the batch. In the original's way that is everything. Here the
photometry (strong view, colour jitter, normalisation) is done for a batch on the training device: with a GPU the
processor's part is "worker" alone, without one "worker + photometry".
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
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataloaders.description import Sample  # noqa: E402
from dataloaders.geometry import LABELLED_SCALES, MEAN_COLOUR, UNLABELLED_SCALES, Geometry  # noqa: E402
from dataloaders.photometry import BLUR_KERNEL, JITTER, MEAN, P_BLUR, P_GRAYSCALE, P_JITTER, STD  # noqa: E402
from dataloaders.photometry import apply_photometry, normalise, to_unit  # noqa: E402
from dataloaders.streams import LabelledStream, UnlabelledStream  # noqa: E402
from utils.palette import save_mask, voc_palette  # noqa: E402

N_CLASSES, N_SUBCLASSES = 19, 170
BARS = {("voc", "labelled"): 3, ("voc", "unlabelled"): 4, ("city", "labelled"): 6, ("city", "unlabelled"): 6}


@dataclass(frozen=True)
class Setting:
    """A published run's files and streams."""

    name: str
    size: tuple[int, int]
    base_size: int
    crop_size: int
    batch_size: int
    jitter: bool
    n_images: int
    images_per_turn: int


SETTINGS = {
    "voc": Setting("voc", (375, 500), 400, 320, 8, jitter=False, n_images=32, images_per_turn=32),
    "city": Setting("city", (1024, 2048), 2048, 720, 4, jitter=True, n_images=4, images_per_turn=4),
}


# --- files -----------------------------------------------------------------------------------------------


def make_files(folder: Path, setting: Setting) -> tuple[Sample, ...]:
    """Images cut from two photographs, masks with regions of every size, and subclass maps in ``folder/subclasses``.

    VOC's are JPEGs of about 75 kB with palette masks, Cityscapes' PNGs of about 2.3 MB with gray ones.
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
            scale = rng.uniform(3.2, 3.4)
            large = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            top, left = (int(rng.integers(large.shape[axis] - setting.size[axis] + 1)) for axis in (0, 1))
            image, path = large[top : top + height, left : left + width], folder / f"{number}.png"
            Image.fromarray(image).save(path)
        coarse = rng.normal(size=(height // 94, width // 94)).astype(np.float32)
        regions = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        mask = np.digitize(regions, np.linspace(-2, 2, N_CLASSES - 1)).astype(np.uint8)
        mask[regions > 2.2] = 255
        label = folder / f"{number}_mask.png"
        if setting.name == "voc":
            save_mask(label, mask, voc_palette())
        else:
            Image.fromarray(mask).save(label)
        subclasses = cv2.resize(mask, (width // 8, height // 8), interpolation=cv2.INTER_NEAREST)
        subclasses[subclasses < 255] *= (N_SUBCLASSES - 1) // N_CLASSES
        subclasses = cv2.resize(subclasses, (width, height), interpolation=cv2.INTER_NEAREST)
        save_mask(folder / "subclasses" / label.name, subclasses, voc_palette())
        samples.append(Sample(str(number), path, label))
    return tuple(samples)


# --- the original's way ----------------------------------------------------------------------------------


class OriginalStream:
    """Everything in the worker: the whole image in float32, resized whole, cropped, PIL's colour jitter, normalised."""

    def __init__(self, samples: tuple[Sample, ...], setting: Setting, scales: tuple[float, float], subclass_dir: Path):
        self.samples, self.setting, self.scales, self.subclass_dir = samples, setting, scales, subclass_dir
        brightness, contrast, saturation, hue = JITTER
        self.jitter = transforms.ColorJitter(brightness, contrast, saturation, hue)
        self.grayscale = transforms.Grayscale(3)
        self.to_network = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def _crop(self, sample: Sample, mask_files: list[Path], rng: np.random.Generator):
        image = np.asarray(Image.open(sample.image).convert("RGB"), dtype=np.float32)
        masks = [np.asarray(Image.open(path), dtype=np.int32) for path in mask_files]
        low, high = (int(self.setting.base_size * scale) for scale in self.scales)
        ratio = int(rng.integers(low, high + 1)) / max(image.shape[:2])
        size = round(image.shape[1] * ratio), round(image.shape[0] * ratio)
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        masks = [cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) for mask in masks]
        crop = self.setting.crop_size
        bottom, right = (max(0, crop - side) for side in image.shape[:2])
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=MEAN_COLOUR)
            masks = [cv2.copyMakeBorder(mask, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=255) for mask in masks]
        top, left = (int(rng.integers(side - crop + 1)) for side in image.shape[:2])
        window = slice(top, top + crop), slice(left, left + crop)
        image, masks = image[window], [mask[window] for mask in masks]
        if rng.random() < 0.5:
            image, masks = np.fliplr(image), [np.fliplr(mask) for mask in masks]
        image = Image.fromarray(np.uint8(image.clip(0, 255)))
        return image, [torch.from_numpy(mask.copy()).long() for mask in masks]

    def labelled(self, key: tuple[int, int]) -> dict:
        sample, rng = self.samples[key[0]], np.random.default_rng(key[1])
        image, (target, subclass) = self._crop(sample, [sample.label, self.subclass_dir / sample.label.name], rng)
        if self.setting.jitter:
            image = self.jitter(image)
        return {"image": self.to_network(image), "target": target, "subclass": subclass}

    def unlabelled(self, key: tuple[int, int]) -> dict:
        sample, rng = self.samples[key[0]], np.random.default_rng(key[1])
        weak, (target,) = self._crop(sample, [sample.label], rng)
        strong = weak
        if rng.random() < P_BLUR:
            strong = Image.fromarray(cv2.GaussianBlur(np.asarray(strong), (BLUR_KERNEL, BLUR_KERNEL), 0))
        if rng.random() < P_JITTER:
            strong = self.jitter(strong)
        if rng.random() < P_GRAYSCALE:
            strong = self.grayscale(strong)
        return {"weak": self.to_network(weak), "strong": self.to_network(strong), "target": target}


# --- this code's way -------------------------------------------------------------------------------------


def our_stream(samples: tuple[Sample, ...], setting: Setting, stream: str, subclass_dir: Path):
    """The stream as ``trainer/batches.py`` builds it for stage 4."""
    scales = LABELLED_SCALES if stream == "labelled" else UNLABELLED_SCALES
    geometry = Geometry(setting.crop_size, setting.base_size, scales, flip=True, rotate=False, blur=False)
    if stream == "unlabelled":
        return UnlabelledStream(samples, geometry, seed=0)
    return LabelledStream(
        samples,
        geometry,
        n_classes=N_CLASSES,
        ignore_index=255,
        seed=0,
        jitter=setting.jitter,
        subclass_dir=subclass_dir,
        n_subclasses=N_SUBCLASSES,
    )


def photometry(batch: dict, device: torch.device) -> None:
    """What ``trainer/batches.py`` does with a batch on the device."""
    images = to_unit(batch["image"].to(device))
    if "target" not in batch:
        normalise(images)
    if "photometry" in batch:
        images = apply_photometry(images, batch["photometry"])
    normalise(images)


# --- measurement -----------------------------------------------------------------------------------------


def processor_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def device_ms(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def measure(setting: Setting, stream: str, samples: tuple[Sample, ...], subclass_dir: Path, turns: int,
            device: torch.device) -> dict:  # fmt: skip
    """Milliseconds per image of both ways, medians over ``turns`` turns of the two."""
    scales = LABELLED_SCALES if stream == "labelled" else UNLABELLED_SCALES
    original = getattr(OriginalStream(samples, setting, scales, subclass_dir), stream)
    ours = our_stream(samples, setting, stream, subclass_dir)
    draws = count()

    def batches(item: Callable[[tuple[int, int]], dict]) -> list[dict]:
        keys = [(number % len(samples), next(draws)) for number in range(setting.images_per_turn)]
        size = setting.batch_size
        return [default_collate([item(key) for key in keys[at : at + size]]) for at in range(0, len(keys), size)]

    times: dict[str, list[float]] = {"original": [], "worker": [], "photometry": []}
    for turn in range(turns + 1):  # the first one warms up
        made: list[dict] = []
        turn_times = {
            "original": processor_ms(lambda: batches(original)),
            "worker": processor_ms(lambda: made.extend(batches(ours.__getitem__))),
            "photometry": (device_ms if device.type == "cuda" else processor_ms)(
                lambda: [photometry(batch, device) for batch in made]
            ),
        }
        if turn:
            for way, milliseconds in turn_times.items():
                times[way].append(milliseconds / setting.images_per_turn)
    row: dict = {"setting": setting.name, "stream": stream}
    row |= {f"{way}_ms": float(np.median(values)) for way, values in times.items()}
    row["images_per_s_original"], row["images_per_s"] = 1e3 / row["original_ms"], 1e3 / row["worker_ms"]
    row["ratio"] = row["original_ms"] / row["worker_ms"]
    if device.type != "cuda":
        row["ratio_with_photometry"] = row["original_ms"] / (row["worker_ms"] + row["photometry_ms"])
    row["bar"] = BARS[setting.name, stream]
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}


def print_table(rows: list[dict], device: torch.device) -> None:
    """The rows with columns that say what was counted."""
    names = {
        "setting": "setting",
        "stream": "stream",
        "original_ms": "original: worker, ms",
        "worker_ms": "ours: worker, ms",
        "photometry_ms": f"ours: photometry on {device.type}, ms",
        "images_per_s_original": "original, images/s",
        "images_per_s": "ours, images/s",
        "ratio": "ratio, worker",
        "ratio_with_photometry": "ratio, worker + photometry",
        "bar": "bar, worker",
    }
    keys = [key for key in names if key in rows[0]]
    for key in keys:
        print(f"{names[key]:36}" + "".join(f"{row[key]!s:>12}" for row in rows))


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
        with tempfile.TemporaryDirectory() as folder:
            samples = make_files(Path(folder), setting)
            files[name] = round(np.mean([sample.image.stat().st_size for sample in samples]) / 1e3)
            for stream in ("labelled", "unlabelled"):
                rows.append(measure(setting, stream, samples, Path(folder) / "subclasses", arguments.turns, device))
    print_table(rows, device)
    print(json.dumps({"torch": torch.__version__, "opencv": cv2.__version__, "image_kb": files, "rows": rows}))


if __name__ == "__main__":
    main()
