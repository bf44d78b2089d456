"""The processor cores that a process may use, and how long OpenMP's threads wait on them."""

import math
import os
from pathlib import Path

SPINS = "20000"
"""Turns of OpenMP's waiting loop, before a thread sleeps until the others are there.

GNU's OpenMP, which PyTorch brings, takes 300,000 by itself. Where other programs want the cores too, a thread then
spins on the core that the one it waits for needs (docs/speed.md).
"""


def cores() -> int:
    """Processor cores that this process may use: its affinity, and its control groups' quota of processor time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))))


def wait_briefly() -> None:
    """Let OpenMP's threads spin briefly, in this process and its children, unless the environment says otherwise.

    OpenMP reads it as PyTorch is loaded, so before that.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def share_cores(processes: int) -> None:
    """Give PyTorch this one's share of the cores between ``processes``, unless OMP_NUM_THREADS says otherwise."""
    if not os.environ.get("OMP_NUM_THREADS"):
        import torch  # which takes seconds: main.py imports this file to show its help

        torch.set_num_threads(max(1, cores() // processes))


def _quota(membership: Path, root: Path) -> float:
    """Cores' worth of processor time that the control groups leave this process, those above its own included."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return math.inf  # no Linux
    quotas = [math.inf]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":  # version 2
            base, files = root, ("cpu.max",)
        elif "cpu" in controllers.split(","):
            base, files = root / controllers, ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        own = base / path.lstrip("/")
        # In a container the path may be the host's, of which only the root is to be seen.
        for folder in (own, *own.parents):
            if folder.is_relative_to(base):
                quotas.append(_quota_of(folder, files))
    return min(quotas)


def _quota_of(folder: Path, files: tuple[str, ...]) -> float:
    try:
        quota, period = " ".join((folder / file).read_text() for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no such folder, or "max"
        return math.inf
