"""All ratios of docs/speed.md on a GPU, each beside the original's way, in one command of at most eight minutes.

    python -m benchmarks.gpu > gpu.md
    python -m benchmarks.gpu --only step validation --minutes 3

Every measurement is a benchmark of its own in a process of its own; one that fails, or for which no time is left, is
named and the others go on. Prints a Markdown table as docs/speed.md has it, and last all their JSON lines.
"""

import argparse
import json
import subprocess
import sys
import time

import torch

COMMANDS = {
    "step": ["train_step", "--rounds", "5"],
    "step fp32": ["train_step", "--rounds", "3", "--precision", "fp32"],
    "step compiled": ["train_step", "--rounds", "5", "--compile"],
    "validation": ["validation", "--rounds", "3"],
    "epoch": ["end_to_end", "--rounds", "3"],
    "streams": ["data", "--settings", "voc", "--turns", "3"],
    "k-means": ["balanced_kmeans", "--sizes", "50000", "700000", "--no-optimality"],
}
SHOWN = ("ratio", "ratio_peak", "wall_s", "peak_gb", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the command itself")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=8, help="for all of them")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: there is no GPU here. --device cpu tries the command itself.")
    deadline = time.monotonic() + 60 * options.minutes
    print("| what | command | way | " + " | ".join(SHOWN) + " |")
    print("| --- | --- | --- |" + " --- |" * len(SHOWN))
    found = {}
    for name in options.only:
        found[name] = _measure(COMMANDS[name], options.device, deadline - time.monotonic())
        command = f"`{' '.join(['benchmarks.' + COMMANDS[name][0], *COMMANDS[name][1:]])}`"
        if isinstance(found[name], str):
            print(f"| {name} | {command} | {found[name]} |" + " |" * len(SHOWN), flush=True)
            continue
        for row in found[name]["rows"]:
            way = " ".join(str(row[key]) for key in ("way", "setting", "stream", "what", "n") if key in row)
            values = [f"{row[key]:.3g}" if isinstance(row.get(key), float) else "" for key in SHOWN]
            print(f"| {name} | {command} | {way} | " + " | ".join(values) + " |", flush=True)
    print("\n" + json.dumps({"torch": torch.__version__, **found}))
    if any(isinstance(result, str) for result in found.values()):
        sys.exit(1)


def _measure(command: list[str], device: str, seconds: float) -> dict | str:
    """The JSON line of a benchmark, or what became of it instead."""
    if seconds <= 0:
        return "no time left"
    arguments = [sys.executable, "-m", f"benchmarks.{command[0]}", *command[1:], "--device", device]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "no time left"
    if done.returncode:
        sys.stderr.write(done.stderr)
        return f"failed with exit code {done.returncode}"
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
