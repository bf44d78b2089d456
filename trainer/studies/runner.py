"""Runs the stages of a study that are missing, several at once, each as its own process as ``main.sh`` starts it."""

import json
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import torch
from pydantic import TypeAdapter

from trainer.studies.description import Run
from utils.cores import cores
from utils.files import write_whole
from utils.inputs import read_json
from utils.logger import log
from utils.stop import StopRequest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Job:
    """A stage of a run: ``flags`` of main.py, and the names of the jobs before it."""

    name: str
    run: Run
    flags: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        return self.name.rsplit("/", 1)[1]

    def command(self) -> list[str]:
        options = [part for override in self.run.overrides for part in ("--set", override)]
        return [sys.executable, str(ROOT / "main.py"), "--config", str(self.run.file), *self.flags, *options]


def jobs_of(runs: Iterable[Run]) -> dict[str, Job]:
    """The stages of runs that are not complete, each once, in an order in which they can be done."""
    jobs: dict[str, Job] = {}

    def add(run: Run, stage: str, flags: tuple[str, ...], *needs: str) -> str:
        name = f"{run.part}/{run.name}/{stage}"
        jobs.setdefault(name, Job(name, run, flags, needs))
        return name

    for run in runs:
        if run.is_complete:
            continue
        needs = ()
        if run.baseline is not None:
            needs = (add(run.baseline, "train", ("--resume", "auto")),)
            if run.config.has_subclasses:
                features = add(run.baseline, "features", ("--save_feature",), *needs)
                needs = (add(run.baseline, "subclasses", ("--clustering",), features),)
        trained = add(run, "train", ("--resume", "auto"), *needs)
        add(run, "test", ("--test",), trained)
    return jobs


class Runner:
    """Does jobs in the order of their needs, ``at_once`` at a time; goes on after one that fails.

    Attributes
    ----------
    failed
        Names of the jobs that failed, and of those that needed them, with where to look.
    """

    def __init__(self, jobs: dict[str, Job], at_once: int):
        self.jobs, self.at_once = jobs, at_once
        self.failed: dict[str, str] = {}
        self._processes: set[Popen] = set()
        self._free = list(range(at_once))
        self._stop = StopRequest(self._pass_on)

    def run(self) -> bool:
        """Do all jobs; False where they were stopped on request."""
        waiting, done = dict(self.jobs), set[str]()
        running: dict[Future, str] = {}
        with ThreadPoolExecutor(self.at_once) as pool, self._stop:
            while waiting or running:
                for name, job in list(waiting.items()):
                    broken = next((need for need in job.needs if need in self.failed), None)
                    if broken is not None:
                        self.failed[name] = f"needs {broken}"
                        del waiting[name]
                    elif not self._stop.asked and done.issuperset(job.needs) and self._has_room(job, running.values()):
                        running[pool.submit(self._do, job)] = name
                        del waiting[name]
                if not running:
                    if self._stop.asked:
                        break
                    continue
                finished, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in finished:
                    name, code = running.pop(future), future.result()
                    if code == 0:
                        done.add(name)
                    elif not self._stop.asked:
                        self.failed[name] = f"exit code {code}; {self._log(self.jobs[name])}"
                        log.warning(f"{name} failed: {self.failed[name]}")
        return not self._stop.asked

    def _has_room(self, job: Job, running: Iterable[str]) -> bool:
        """Whether fewer than ``at_once`` are running, and none in the job's folder, where one works at a time."""
        folders = [self.jobs[name].run.config.run_dir for name in running]
        return len(folders) < self.at_once and job.run.config.run_dir not in folders

    def _do(self, job: Job) -> int:
        log_file = self._log(job)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        log.info(f"{job.name} …")
        slot, before, started = self._free.pop(), seconds_of(job.run, job.stage), time.monotonic()
        _keep_seconds(job.run, job.stage, None)  # not known, should this process be killed now
        with open(log_file, "ab") as output:
            process = Popen(job.command(), env=self._environment(slot), stdout=output, stderr=output)
        self._processes.add(process)
        if self._stop.asked:  # between the decision to start it and now
            process.terminate()
        code = process.wait()
        self._processes.discard(process)
        self._free.append(slot)
        seconds = time.monotonic() - started
        _keep_seconds(job.run, job.stage, None if before is None else before + seconds)
        log.info(f"{job.name}: {'done' if code == 0 else f'exit code {code}'} after {seconds:.0f} s")
        return code

    def _environment(self, slot: int) -> dict[str, str]:
        """A GPU of its own for each of several at once, or its share of the cores."""
        environment = dict(os.environ)
        if self.at_once > 1 and torch.cuda.is_available():
            environment.setdefault("CUDA_VISIBLE_DEVICES", str(slot % torch.cuda.device_count()))
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // self.at_once)))
        return environment

    @staticmethod
    def _log(job: Job) -> Path:
        return _beside_logs(job.run, job.stage, ".txt")

    def _pass_on(self) -> None:
        """Ask the stages at work to stop; each saves first."""
        for process in tuple(self._processes):
            process.terminate()


def seconds_of(run: Run, stage: str) -> float | None:
    """How long a stage has taken over all its starts; None where one was killed, or it is not known."""
    path = _beside_logs(run, stage, ".seconds")
    if not path.exists():
        return 0.0
    return read_json(path, TypeAdapter(float | None), "Move it away; the stage's time is then not known.")


def _keep_seconds(run: Run, stage: str, seconds: float | None) -> None:
    write_whole(_beside_logs(run, stage, ".seconds"), json.dumps(seconds))


def _beside_logs(run: Run, stage: str, suffix: str) -> Path:
    return run.config.run_dir.parent / "logs" / f"{run.name}_{stage}{suffix}"
