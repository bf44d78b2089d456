"""Which stages of a run are done: with which configuration, from which input, and what they wrote."""

import json
import platform
import subprocess
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from trainer.evaluation.run_json import Stage, read_stages
from utils.config import Config, differing_keys
from utils.distributed import barrier, gather, is_main, world_size
from utils.errors import UsageError, some
from utils.files import write_whole
from utils.fingerprint import changed, fingerprint, sha256
from utils.logger import log

try:
    import resource
except ImportError:  # no such counts on this system
    resource = None  # type: ignore[assignment]


class Record:
    """One stage's entry in the run's ``stages.json``.

    Parameters
    ----------
    run_dir
        The run's folder.
    made_from
        Fingerprints of what the stage is made from, by what messages call it: another one is refused, as another
        configuration is.
    source
        Fingerprint of what an earlier stage made: another one makes this stage be done again.
    """

    def __init__(self, run_dir: Path, stage: str, made_from: dict[str, str] | None = None, source: str = ""):
        self.run_dir, self.stage, self.made_from, self.source = run_dir, stage, made_from or {}, source
        self.path = run_dir / "stages.json"
        self.began = _now()

    @property
    def entry(self) -> Stage | None:
        """What was written when the stage was last done; None where it was not."""
        return read_stages(self.path).get(self.stage)

    @property
    def is_begun(self) -> bool:
        """Whether it was begun and not done since: what it writes may be partly of this time, partly of before."""
        return read_stages(self.path).get(self.stage, self) is None

    @property
    def made(self) -> dict[str, Any]:
        """How the stage was made when it was last done; empty where it was not."""
        entry = self.entry
        return {} if entry is None else dict(entry["made"])

    def refuse_unlike_ranks(self) -> None:
        """Refuse, in every process, to go on where one would make the stage from something else than the first.

        Machines may have data, subclass maps and checkpoints of their own. Every process must call it.

        Raises
        ------
        UsageError
            With the first rank that differs, and in what.
        """
        first, *others = gather({**self.made_from, "the checkpoint": self.source})
        for rank, found in enumerate(others, 1):
            if differing := changed(first, found):
                raise UsageError(
                    f"{self.stage}: rank {rank} finds another content than rank 0 of {' and of '.join(differing)}. "
                    "Every machine needs the same data in data_dir, split lists, subclass maps and checkpoint."
                )

    def is_of(self, config: Config) -> bool:
        """Whether the stage has been done, with a configuration that gives the same results."""
        entry = self.entry
        return entry is not None and not differing_keys(entry["config"], config)

    def is_done(self, config: Config, outputs: Iterable[Path], force: bool) -> bool:
        """Whether the stage is done from this input and its ``outputs`` are there; says so, and how to redo it.

        Raises
        ------
        UsageError
            It is done with another configuration or from other data, whose results this would replace; or an output is
            there and not what the stage wrote.
        """
        entry = self.entry
        if force or entry is None:
            return False
        if entry["source"] != self.source:
            log.info(f"{self.stage}: what it was made from has changed since; doing it again")
            return False
        differing = differing_keys(entry["config"], config) + changed(entry.get("made_from", {}), self.made_from)
        if differing:
            raise UsageError(
                f"{self.run_dir}: {self.stage} is done with another configuration or other data; it differs in "
                f"{some(differing, separator='; ')}. Give this run another experim_name, or do it again with --force."
            )
        sizes = {self.run_dir / name: int(seen.split()[0]) for name, seen in entry.get("outputs", {}).items()}
        gone = [path for path in outputs if not path.is_file() or path.stat().st_size < sizes.get(path, 0)]
        if gone:
            log.info(f"{self.stage}: gone or cut off: {some(gone)}; doing it again")
            return False
        self.refuse_other_outputs()
        log.info(f"{self.stage} of {config.experim_name} is done: {self.run_dir} (--force does it again)")
        return True

    def refuse_stale(self, way_out: str) -> None:
        """Refuse what the stage made, where it is known, if it is not what it wrote, or was made from what has changed.

        That is the data, and a checkpoint of the run itself. Refused is a stage that was not finished, too.
        """
        if self.is_begun:
            raise UsageError(f"{self.run_dir}: {self.stage} was begun and not finished. {way_out}")
        entry = self.entry
        if entry is None:
            return
        differing = changed(entry.get("made_from", {}), self.made_from)
        used = Path(entry["made"].get("checkpoint", ""))
        if used.parent == self.run_dir:
            trained_again = Record(self.run_dir, "train").is_begun
            if sha256(used) not in entry["source"] if used.is_file() else trained_again:
                differing.append(str(used))
        if differing:
            raise UsageError(
                f"{self.run_dir}: {self.stage} was done before {' and '.join(differing)} changed. {way_out}"
            )
        self.refuse_other_outputs()

    def refuse_other_outputs(self) -> None:
        """Refuse files that are there, but not what the stage wrote: damaged or replaced."""
        entry = self.entry
        for name, written in (entry.get("outputs", {}) if entry is not None else {}).items():
            path = self.run_dir / name
            if path.is_file() and _seen(path) != written:
                raise UsageError(
                    f"{path}: is not what the stage {self.stage} wrote; it is damaged or another file. Put the right "
                    "one back, or delete it and give the command of that stage again."
                )

    def how_made(self, config: Config, **more: Any) -> dict[str, Any]:
        """When and on what the stage is done, for the record and the report; ``more`` is kept beside that."""
        return {
            "began": self.began,
            "ended": _now(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_initialized() else "CPU",
            "processes": world_size(),
            "arguments": config.arguments,
            "peak_memory_gb": _peak_memory_gb(),
            "commit": commit(),
            **more,
        }

    def done(self, config: Config, outputs: Iterable[Path], made: dict[str, Any]) -> None:
        """Record the stage as done, after all that it writes is written."""
        barrier()
        if not is_main():
            return
        entry = {
            "source": self.source,
            "config": config.model_dump(),
            "made": made,
            "made_from": self.made_from,
            "outputs": {str(path.relative_to(self.run_dir)): _seen(path) for path in outputs if path.is_file()},
        }
        self._write(entry)

    def begin(self) -> None:
        """Record the stage as begun and not done, before its output is touched."""
        barrier()
        if is_main():
            self._write(None)
        barrier()

    def _write(self, entry: dict[str, Any] | None) -> None:
        others = {name: other for name, other in read_stages(self.path).items() if name != self.stage}
        write_whole(self.path, json.dumps({**others, self.stage: entry}, indent=1))


def _seen(output: Path) -> str:
    """Size and fingerprint of a file."""
    return f"{output.stat().st_size} {fingerprint(output)}"


def _peak_memory_gb() -> float | None:
    """Of the GPU where there is one, else of this process; None where the system does not say."""
    if torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_reserved() / 1e9, 2)
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
