"""Time as a budget: the schedules of a run and of its baseline are scaled to ``trainer.minutes``.

Iterations of both are timed when the baseline begins; by how much the schedules are scaled is kept in the baseline's
folder, so that every later command, on whatever machine, has the same schedules.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from dataloaders.sets.description import SegmentationData
from trainer.loop.resume import NEWEST
from trainer.planning.rehearsal import Rehearsal, Times, planned_subclasses, planned_validations
from trainer.record import Record
from utils.config import BASELINE, USRN, Config, differing_keys
from utils.distributed import barrier, gather, is_main
from utils.errors import UsageError
from utils.files import write_whole
from utils.inputs import read_json
from utils.logger import log
from utils.schedule import Schedule

SCHEDULE = "schedule.json"
MOST_EPOCHS = 10**6
RESERVED, STARTING = 0.1, 30
"""Part of the time for stages 2 and 3; seconds for the seven starts of the program, of a short time half at most."""
VALIDATING = 0.2
"""Part of the time that validations may take; there is one at least."""
EVALUATIONS = 3
"""Evaluations of each run at its end, of the best and the last model with all scores, count as so many validations."""


@with_config(ConfigDict(strict=True))
class Fit(TypedDict):
    """``schedule.json``: what schedules are multiplied by, how many validations they have, and for which configuration
    of the baseline."""

    factor: float
    validations: int
    config: dict[str, Any]


_FIT = TypeAdapter(Fit)


def as_stored(config: Config) -> Config:
    """The configuration with the schedule that fits ``trainer.minutes``, where stage 1 has made it.

    Every process must call it.
    """
    if config.trainer.minutes is None:
        return config
    stored = gather(_read(config))[0]  # machines may have folders of their own
    return config if stored is None else scaled(config, stored)


def fit_training(config: Config, data: SegmentationData, device: torch.device, *, anew: bool) -> Config:
    """The same for a training: stage 1 times its iterations and stores the schedule, where it begins (``anew``: again).

    Every process must call it.

    Raises
    ------
    UsageError
        Stage 4 has another ``trainer.minutes`` than stage 1.
    """
    minutes = config.trainer.minutes
    if minutes is None:
        return config
    stored, path = _read(config), config.baseline_dir / SCHEDULE
    begins = Record(config.run_dir, "train").entry is None and not (config.run_dir / NEWEST).is_file()
    stored, begins = gather((stored, begins))[0]
    if config.name == BASELINE:
        if anew or (begins and (stored is None or differing_keys(stored["config"], config))):
            stored = gather(fit_to_minutes(config, data, device)[0])[0]
            if is_main():
                write_whole(path, _FIT.dump_json(stored, indent=1))
            barrier()
        return config if stored is None else scaled(config, stored)  # another one than its checkpoint's is refused
    if stored is None or stored["config"]["trainer"].get("minutes") != minutes:
        raise UsageError(
            f"{path}: {'is missing' if stored is None else 'is for another time'}; the schedule for trainer.minutes "
            f"{minutes:g} is made by stage 1. Train the baseline with the same --minutes (sh main.sh does both)."
        )
    return scaled(config, stored)


def fit_plan(config: Config, data: SegmentationData, device: torch.device) -> Config:
    """The same for what is only planned: where nothing is stored, the schedule that would be."""
    if config.trainer.minutes is None:
        return config
    stored = _read(config)
    return scaled(config, fit_to_minutes(config, data, device)[0] if stored is None else stored)


def fit_to_minutes(config: Config, data: SegmentationData, device: torch.device) -> tuple[Fit, dict[str, Times]]:
    """Time some iterations of a run and of its baseline, as the machine is now, and fit their schedules to
    ``trainer.minutes``."""
    assert config.trainer.minutes is not None
    method = config if config.uses_unlabelled else config.model_copy(update={"name": USRN})
    times: dict[str, Times] = {}
    for of_kind in (config.model_copy(update={"name": BASELINE}), method):
        table = planned_subclasses(of_kind, data) if of_kind.has_subclasses else None
        with tempfile.TemporaryDirectory() as folder:
            times[of_kind.name] = Rehearsal(of_kind, data, table, device, Path(folder)).times()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    whole = 60 * config.trainer.minutes
    seconds = max(whole / 2, whole * (1 - RESERVED) - STARTING)
    validation = sum(of_kind.validation for of_kind in times.values())
    validations = min(planned_validations(config), max(1, int(VALIDATING * seconds / max(validation, 1e-9))))
    left = seconds - (validations + EVALUATIONS) * validation
    factor = max(0.0, left) / sum(of_kind.iterations for of_kind in times.values())
    fit = Fit(factor=factor, validations=validations, config=config.model_dump())
    after = scaled(config, fit)
    what = "; ".join(f"{name}: {of_kind}" for name, of_kind in times.items())
    log.info(
        f"{config.trainer.minutes:g} minutes for all stages, as the machine is now: "
        f"{Schedule.from_config(after).iterations:,} iterations of each training in place of "
        f"{Schedule.from_config(config).iterations:,}, {planned_validations(after)} validations (timed: {what})"
    )
    if config.trainer.epochs * factor < 1:
        log.warning(
            f"trainer.minutes: {config.trainer.minutes:g} is less than the shortest schedule takes, one pass through "
            "the images (trainer.epochs 1); it will take longer"
        )
    return fit, times


def scaled(config: Config, fit: Fit) -> Config:
    """The configuration with another length: epochs, start of the unlabelled images, validations, checkpoints."""
    trainer, before = config.trainer, Schedule.from_config(config).epochs
    longer = config.model_copy(
        update={
            "trainer": trainer.model_copy(
                update={"epochs": min(MOST_EPOCHS, max(1, int(trainer.epochs * fit["factor"])))}
            )
        }
    )
    epochs = Schedule.from_config(longer).epochs
    start = round(config.model.epoch_start_unsup * epochs / before)
    every = max(1, -(-epochs // max(1, fit["validations"])))
    periods = {"val_per_epochs": every, "save_period": max(1, round(trainer.save_period * epochs / before))}
    return longer.model_copy(
        update={
            "model": config.model.model_copy(update={"epoch_start_unsup": start}),
            "trainer": longer.trainer.model_copy(update=periods),
        }
    )


def _read(config: Config) -> Fit | None:
    path = config.baseline_dir / SCHEDULE
    if not path.exists():
        return None
    return read_json(path, _FIT, "Move it away, and train the run again with --force.")
