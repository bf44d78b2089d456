"""Which stages of a run are done, with which configuration and from which input."""

import json
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from trainer.evaluation.run_json import Stage, read_stages
from utils.config import Config, differing_keys
from utils.distributed import barrier, is_main, world_size
from utils.errors import UsageError, some
from utils.files import write_whole
from utils.logger import log

try:
    import resource
except ImportError:  # no such counts on this system
    resource = None


class Record:
    """One stage's entry in the run's ``stages.json``."""

    def __init__(self, config: Config, stage: str):
        self.config, self.stage = config, stage
        self.path = config.run_dir / "stages.json"
        self.began = _now()

    @property
    def is_there(self) -> bool:
        """Whether the stage has been done."""
        return self.stage in self._read()

    @property
    def is_of_this_configuration(self) -> bool:
        """Whether the stage has been done, with a configuration that gives the same results."""
        entry = self._read().get(self.stage)
        return entry is not None and not differing_keys(entry["config"], self.config)

    @property
    def source(self) -> str:
        """What the stage was made from when it was last done; "" where it was not."""
        entry = self._read().get(self.stage)
        return "" if entry is None else entry["source"]

    @property
    def made(self) -> dict[str, Any]:
        """How the stage was made when it was last done; empty where it was not."""
        entry = self._read().get(self.stage)
        return {} if entry is None else entry["made"]

    def is_done(self, source: str, output: Path, force: bool) -> bool:
        """Whether the stage is done from this input; says so, and how to redo it.

        Raises
        ------
        UsageError
            It is done with another configuration, whose results this would replace.
        """
        entry = self._read().get(self.stage)
        if force or entry is None or not output.exists():
            return False
        if entry["source"] != source:
            log.info(f"{self.stage}: what it was made from has changed since; doing it again")
            return False
        differing = differing_keys(entry["config"], self.config)
        if differing:
            raise UsageError(
                f"{output}: is the result of another configuration; it differs in "
                f"{some(differing, separator='; ')}. Give this run another experim_name, or replace the "
                "result with --force."
            )
        log.info(f"{self.stage} of {self.config.experim_name} is done: {output} (--force does it again)")
        return True

    def done(self, source: str, **more) -> None:
        """Record the stage as done, on what and when; ``more`` is kept beside that."""
        made = {
            "began": self.began,
            "ended": _now(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_initialized() else "CPU",
            "processes": world_size(),
            "arguments": self.config.arguments,
            "peak_memory_gb": _peak_memory_gb(),
            "commit": commit(),
            **more,
        }
        entry = {"source": source, "config": self.config.model_dump(), "made": made}
        self._write({**self._read(), self.stage: entry})

    def undo(self) -> None:
        """Forget the stage, before its output is touched."""
        barrier()
        self._write({name: entry for name, entry in self._read().items() if name != self.stage})
        barrier()

    def _write(self, entries: dict) -> None:
        if is_main():
            text = json.dumps(entries, indent=1)
            write_whole(self.path, text)

    def _read(self) -> dict[str, Stage]:
        return read_stages(self.path)


def _peak_memory_gb() -> float | None:
    """Of the GPU where there is one, else of this process; None where the system does not say."""
    if torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2) if resource else None


def commit() -> str | None:
    """The checkout's commit, with ``+`` where files differ from it; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _now() -> str:
    return datetime.now().isoformat(timespec="seconds")
