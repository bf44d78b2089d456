"""What the schedules of configurations resolve to.

    python -m benchmarks.schedules configs/voc_*.json configs/city_*.json

Prints iterations, epochs and the learning rate of the heads at the first and the last iteration, and a JSON line.
"""

import argparse
import json

from utils.config_file import load_config
from utils.schedule import Schedule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    rows = [resolved(path) for path in parser.parse_args().configs]
    print("".join(f"{key:>16}" if at else f"{key:24}" for at, key in enumerate(rows[0])))
    for row in rows:
        name, *numbers, last = row.values()
        print(f"{name:24}" + "".join(f"{number:>16,}" for number in numbers) + f"{last:16.3g}")
    print(json.dumps(rows))


def resolved(path: str) -> dict[str, str | int | float]:
    config = load_config(path)
    schedule, lr = Schedule.from_config(config), config.optimizer.args.lr
    return {
        "run": config.experim_name,
        "iterations": schedule.iterations,
        "epochs": schedule.epochs,
        "an epoch": schedule.iterations_per_epoch,
        "lr steps": schedule.lr_steps_per_epoch,
        "first lr": lr * schedule.lr_factor(0),
        "last lr": lr * schedule.lr_factor(schedule.iterations - 1),
    }


if __name__ == "__main__":
    main()
