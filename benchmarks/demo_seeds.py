"""Is USRN better than its baseline on the demo data set? All stages for several seeds; mean and spread.

    python3 benchmarks/demo_seeds.py --seeds 1 2 3 --threads 2

The seed is that of initial weights, augmentation and order; data and labelled images are the same. Prints a table and a
JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
STAGES = (
    ("baseline", []),
    ("baseline", ["--save_feature"]),
    ("baseline", ["--clustering"]),
    ("usrn", []),
    ("baseline", ["--test"]),
    ("usrn", ["--test"]),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="demo", help="run name, as for main.sh")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--save_dir", default="saved/seeds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()

    results = []
    for seed in options.seeds:
        started = time.monotonic()
        folder = Path(options.save_dir) / f"{options.run}_{seed}"
        for kind, flags in STAGES:
            settings = [f"random_seed={seed}", f"trainer.save_dir={folder}", f"trainer.log_dir={folder}", *options.set]
            command = [sys.executable, "main.py", "-c", f"configs/{options.run}_{kind}.json", *flags]
            command += [part for setting in settings for part in ("--set", setting)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        pair = {
            kind: json.loads((ROOT / folder / f"{options.run}_{kind}" / "results.json").read_text())
            for kind in ("baseline", "usrn")
        }
        results.append({"seed": seed, "minutes": (time.monotonic() - started) / 60, **pair})
        print(_line(f"seed {seed}", [pair["baseline"]["mean_iou"]], [pair["usrn"]["mean_iou"]]), flush=True)

    print("\nIoU in %, mean ± standard deviation over the seeds")
    for name in [*results[0]["usrn"]["iou"], "mean"]:
        columns = [
            [result[kind]["mean_iou"] if name == "mean" else result[kind]["iou"][name] or 0 for result in results]
            for kind in ("baseline", "usrn")
        ]
        print(_line(name, *columns))
    print(json.dumps(results))


def _line(name: str, baseline: list[float], usrn: list[float]) -> str:
    def shown(values: list[float]) -> str:
        spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{100 * statistics.mean(values):.1f}{spread}"

    change = 100 * (statistics.mean(usrn) - statistics.mean(baseline))
    return f"{name:12}  baseline {shown(baseline):>11}  USRN {shown(usrn):>11}  change {change:+.1f}"


if __name__ == "__main__":
    main()
