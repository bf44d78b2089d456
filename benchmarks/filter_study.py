"""Does the filter of the random scale matter? Baselines trained with antialiasing and with OpenCV's, several seeds.

    python -m benchmarks.filter_study --seeds 1 2 3 --set data_dir=dataset/camvid

Seed, draws, crops and everything else are the same in both. Prints a table and a JSON line of the mean IoU on the
validation images.
"""

import argparse
import json
import multiprocessing
import os
import statistics
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

FILTERS = ("antialiased", "opencv")


def resize_by_opencv(image: np.ndarray, size: tuple[int, int], window: tuple[slice, slice] = (slice(None),) * 2):
    """In the place of ``dataloaders.geometry.resize_image``: another kernel (a = -0.75), which is not widened."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)[window]


def train(kind: str, arguments: list[str]) -> None:
    """Train and evaluate a run with one of the filters; data-loading processes, which are forked, have the same."""
    import main

    if kind == "opencv":
        mock.patch("dataloaders.geometry.resize_image", resize_by_opencv).start()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        for stage in ([], ["--test"]):
            if main.main([*arguments, *stage]):
                raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/camvid_1over8_baseline.json", help="a baseline with random scale")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--save_dir", default="saved/filters")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()

    scores: dict[str, list[float]] = {kind: [] for kind in FILTERS}
    for seed in options.seeds:
        for kind in FILTERS:
            folder = Path(options.save_dir) / f"{kind}_{seed}"
            settings = [*options.set, f"random_seed={seed}", f"trainer.save_dir={folder}", f"trainer.log_dir={folder}"]
            settings += ["experim_name=run"]
            common = ["--config", options.config, "--device", options.device, "--processes", "1", "--force"]
            common += [part for setting in settings for part in ("--set", setting)]
            # A process of its own, which may use CUDA. Forked, as those that load data are then forked from it as well.
            process = multiprocessing.get_context("fork").Process(target=train, args=(kind, common))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)
            scores[kind].append(json.loads((folder / "run" / "results.json").read_text())["mean_iou"])
        print(f"seed {seed}: " + ", ".join(f"{kind} {100 * scores[kind][-1]:.2f}" for kind in FILTERS), flush=True)
    if scores["antialiased"] == scores["opencv"]:
        raise SystemExit("the filter changed nothing: train_supervised.scale or augment is off")
    changes = [ours - opencvs for ours, opencvs in zip(*scores.values(), strict=True)]
    print("\nmean IoU in %, mean ± standard deviation over the seeds")
    for what, values in (*scores.items(), ("difference", changes)):
        spread = statistics.stdev(values) if len(values) > 1 else 0
        print(f"{what:12} {100 * statistics.mean(values):6.2f} ± {100 * spread:.2f}")
    print(json.dumps({"config": options.config, "set": options.set, "seeds": options.seeds, **scores}))


if __name__ == "__main__":
    main()
