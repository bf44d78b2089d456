"""What is left of a training's rate beside other programs, and what waiting briefly costs where there are none.

    python -m benchmarks.busy                  # the demo's baseline, five rounds, four busy processes
    python -m benchmarks.busy --rounds 3 --load 2 --seconds 5

Each round trains on the quiet machine and then beside processes that only compute, which start when the training is
warm, each with OpenMP's waiting as PyTorch brings it and as utils/cores.py sets it, in turns, every one in a process of
its own. A rate is iterations over wall time, and the table has their medians; last comes one JSON line. The machine has
to be quiet otherwise.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.cores import SPINS, cores  # noqa: E402

WAYS = {"as PyTorch brings it": None, "this code": SPINS}
SITUATIONS = ("quiet", "busy")
WARM_UP, READY = 20, "ready"  # iterations, and what a process says after them
BARS = {"quiet": 0.97, "busy": 1 / 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--load", type=int, default=4, help="busy processes")
    parser.add_argument("--seconds", type=float, default=10, help="of one measurement")
    parser.add_argument("--train-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train_in:
        print(_train(options.train_in, options.seconds))
        return
    rates: dict[tuple[str, str], list[float]] = {(situation, way): [] for situation in SITUATIONS for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        _measure(folder, 1, SPINS, 0)  # makes the demo's images
        for number in range(options.rounds):
            for situation in SITUATIONS:
                load = options.load if situation == "busy" else 0
                for way in list(WAYS)[:: 1 if number % 2 else -1]:
                    rates[situation, way].append(_measure(folder, options.seconds, WAYS[way], load))
    median = {key: statistics.median(values) for key, values in rates.items()}
    print(f"iterations a second of the demo's baseline, {cores()} cores, {options.load} busy processes")
    for way in WAYS:
        print(f"{way:22}" + "  ".join(f"{situation} {median[situation, way]:6.2f}" for situation in SITUATIONS))
    ours, theirs = list(WAYS)[::-1]
    ratios = {
        "quiet": statistics.median(
            here / there for here, there in zip(rates["quiet", ours], rates["quiet", theirs], strict=True)
        ),
        "busy": median["busy", ours] / median["quiet", ours],
    }
    print(f"this code's rate when quiet, of PyTorch's: {ratios['quiet']:.3f} (bar {BARS['quiet']})")
    print(f"this code's rate when busy, of its own when quiet: {ratios['busy']:.3f} (bar {BARS['busy']:.3f})")
    print(json.dumps({"ratios": ratios, "rates": {" ".join(key): values for key, values in rates.items()}}))


def _measure(folder: str, seconds: float, spins: str | None, load: int) -> float:
    """Iterations a second in a process of its own, beside so many busy ones once it is warm."""
    chosen = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    environment |= {} if spins is None else {"GOMP_SPINCOUNT": spins}
    command = [sys.executable, "-m", "benchmarks.busy", "--train-in", folder, "--seconds", str(seconds)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        while process.stdout.readline().strip() != READY:
            if process.poll() is not None:
                sys.exit(process.returncode)
        with _busy(load):
            return float(process.communicate("\n")[0].splitlines()[-1])


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _train(folder: Path, seconds: float) -> float:
    import torch

    from dataloaders import open_data
    from trainer.loop.trainer import Trainer
    from trainer.stages import make_ready
    from utils.config_file import load_config

    settings = [
        f"data_dir={folder / 'demo'}",
        f"trainer.save_dir={folder / 'saved'}",
        f"trainer.log_dir={folder / 'runs'}",
    ]
    config = load_config("configs/demo_baseline.json", settings)
    make_ready(config)
    trainer = Trainer(config, open_data(config), torch.device("cpu"))
    trainer.step.train()
    batches = iter(trainer.batches)
    for _ in range(WARM_UP):
        trainer._iterate(next(batches))
    print(READY, flush=True)
    sys.stdin.readline()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        trainer._iterate(next(batches))
        done += 1
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
