"""Where a run goes on: which checkpoint, and whether it is one of this run."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError
from torch import Tensor
from torch.optim import Optimizer

from dataloaders import SegmentationData, parts_of_training
from trainer.loop.assembly import load_moments
from trainer.loop.tally import Tally
from trainer.subclasses.table import maps_fingerprint, read_subclass_table, refuse_other_maps
from utils.checkpoint import load_checkpoint
from utils.commands import command
from utils.config import Config, differing_keys
from utils.distributed import restarts
from utils.errors import UsageError, some
from utils.fingerprint import changed, digest, fingerprint
from utils.inputs import first_problem
from utils.logger import log
from utils.schedule import Schedule

BEST, NEWEST, PREVIOUS = "best_model.pth", "checkpoint.pth", "checkpoint_previous.pth"


class Origin(NamedTuple):
    """A checkpoint that a run starts from: its file, and what ``load_checkpoint`` read."""

    path: Path
    checkpoint: dict[str, Any]

    @property
    def state(self) -> dict[str, Any] | None:
        """Where its run was; None for weights alone."""
        return self.checkpoint.get("resume")

    @property
    def best(self) -> float | None:
        """The best mean IoU of its run so far, a share."""
        state = self.state or {}
        best = (
            state["best"] if "best" in state else float(self.checkpoint["monitor_best"])
        )  # as files of before have it
        return None if best is None or best < 0 else best

    @classmethod
    def read(cls, path: Path) -> "Origin":
        """Read a checkpoint; what it says of its run is checked for its types, and by the trainer for its shapes."""
        checkpoint = load_checkpoint(path)
        if checkpoint.get("resume") is not None:
            try:
                _State.model_validate(checkpoint["resume"])
            except ValidationError as error:
                raise UsageError(f"{path}: is no checkpoint to go on from ({first_problem(error)}).") from None
        return cls(path, checkpoint)


class _State(BaseModel):
    """Where a run was: a checkpoint's ``resume``."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)

    iteration: int = Field(ge=0)
    epochs_done: int = Field(ge=0)
    finished: bool
    not_improved: int = Field(ge=0)
    best: float | None = None  # not in files of before
    student: dict[str, Tensor] | None = None  # its weights, where ``state_dict`` has the teacher's
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    confusion: Tensor
    labels: Tensor
    pseudo_labels: Tensor
    running: dict[str, Tensor]
    config: Json[dict[str, Any]]
    made_from: dict[str, str] = {}


def training_inputs(config: Config, data: SegmentationData) -> dict[str, str]:
    """Fingerprints of what a run trains on, by what messages call it.

    Raises
    ------
    UsageError
        The subclass maps of a USRN are missing, or not of this data; or so is the baseline that it starts from.
    """
    inputs = data.fingerprints(*parts_of_training(config))
    if config.has_subclasses:
        table = read_subclass_table(config, data)
        maps = maps_fingerprint(config.subclass_dir, data)
        refuse_other_maps(config, table, maps, data)
        inputs["the subclass maps"] = digest([table.counts, maps])
    if config.pretrained == "baseline":
        model = config.baseline_dir / BEST
        if not model.is_file():
            raise UsageError(
                f'{model}: is missing, from which "pretrained": "baseline" starts. Train the baseline first: '
                + command("--resume auto", config.baseline_dir, config)
            )
        inputs["the baseline's best model"] = fingerprint(model)
    elif isinstance(config.pretrained, str):
        inputs["the pretrained weights"] = fingerprint(Path(config.pretrained))
    return inputs


def identity(config: Config, inputs: dict[str, str]) -> dict[str, Any]:
    """What a checkpoint says of its run: the configuration, and what it trains on."""
    return {"config": json.dumps(config.model_dump()), "made_from": inputs}


def differences(state: dict, config: Config, inputs: dict[str, str]) -> list[str]:
    """In what a checkpoint's run (its ``resume``) differs from one of ``config`` and ``inputs`` so that results may."""
    return differing_keys(json.loads(state["config"]), config) + changed(state.get("made_from", {}), inputs)


def checkpoint_to_go_on_from(config: Config, inputs: dict[str, str], resume: str | None, force: bool) -> Origin | None:
    """The checkpoint that a run starts from; None for a run from the beginning.

    Parameters
    ----------
    inputs
        What the run trains on: :func:`training_inputs`.
    resume
        A file; "auto", the newest good one of this run; or None. A run that torchrun has started again after a
        failure goes on from its own newest, whatever is given.
    force
        With a file: go on from it although the run differs. Without: start over.

    Raises
    ------
    UsageError
        The checkpoint is of a run that differs, no checkpoint of the run can be read, or the run is unfinished and
        nothing says whether to go on.
    """
    if restarts():
        resume, force = "auto", False
    if resume is not None and resume != "auto":
        origin = Origin.read(Path(resume))
        state = origin.state
        if state is not None and not state["finished"] and not force:
            advice = "Go on all the same with --force, or start a new run from the weights of a best_model.pth."
            _refuse_if_differing(origin.path, state, config, inputs, advice)
        return origin
    origin = None if force else _newest_good(config)
    state = origin.state if origin is not None else None
    if origin is None or state is None:
        return None
    path = origin.path
    advice = "Give this run another experim_name, or start it over with --force."
    _refuse_if_differing(path, state, config, inputs, advice)
    if resume is None and not state["finished"]:
        raise UsageError(
            f"{path}: an unfinished run is here, at iteration {state['iteration']}. Go on with --resume auto, or "
            "start it over with --force."
        )
    return origin


def check_position(path: Path, state: dict, schedule: Schedule) -> None:
    """Refuse a checkpoint whose place (its ``resume``) is none of the schedule's."""
    at, done, per_epoch = state["iteration"], state["epochs_done"], schedule.iterations_per_epoch
    if at > schedule.iterations:
        raise UsageError(f"{path}: is at iteration {at}, beyond the {schedule.iterations} of this configuration.")
    if not 0 <= at - done * per_epoch <= per_epoch:
        raise UsageError(
            f"{path}: is at iteration {at} after {done} epochs; an epoch of this run has {per_epoch} iterations. Start "
            "the run over: --force without --resume."
        )


def load_state(path: Path, state: dict, optimizer: Optimizer, scaler: torch.amp.GradScaler, tally: Tally) -> None:
    """Put what a checkpoint's ``resume`` holds beside its place into optimiser, scaler and tally."""
    try:
        load_moments(optimizer, state["optimizer"])
        if state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        tally.load(state)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:  # of another kind or shape
        raise UsageError(
            f"{path}: what it says of its run is damaged, or of another network ({error}). Take another checkpoint."
        ) from None


def remove_earlier_run(run_dir: Path, but: str | None) -> None:
    """Remove the checkpoints of an earlier run where a new one begins: none may be taken for one of the new.

    The best model goes first, so that none is evaluated of which the rest is gone. ``but``, the file whose weights the
    new run starts from, stays until it is replaced: the same command may have to be given again.
    """
    for path in (run_dir / BEST, run_dir / NEWEST, run_dir / PREVIOUS):
        if path.is_file() and not (but is not None and Path(but).is_file() and path.samefile(but)):
            path.unlink()


def is_lost(model: Path) -> bool:
    """Whether a ``best_model.pth`` is gone or cut off: the end of the file says where everything in it is."""
    return not zipfile.is_zipfile(model)


def forget_best_model(model: Path, checkpoint: Path, finished: bool) -> None:
    """Say that a best model is lost whose weights are not those of the checkpoint.

    Raises
    ------
    UsageError
        The run is finished, so that no better one comes.
    """
    if finished:
        raise UsageError(
            f"{model}: is gone or damaged, and the weights of {checkpoint} are later ones. Put the file back, or train "
            "the run again with --force."
        )
    log.warning(f"{model}: is gone or damaged; the best model is the best one from here on")


def _refuse_if_differing(path: Path, state: dict, config: Config, inputs: dict[str, str], advice: str) -> None:
    differing = differences(state, config, inputs)
    if differing:
        raise UsageError(f"{path}: is of a run that differs in {some(differing, separator='; ')}. {advice}")


def _newest_good(config: Config) -> Origin | None:
    """The newest checkpoint of the run that can be read."""
    damaged: UsageError | None = None
    for path in (config.run_dir / NEWEST, config.run_dir / PREVIOUS):
        try:
            if path.is_file():
                return Origin.read(path)
        except UsageError as error:
            log.warning(f"{error} Looking for the one before it.")
            damaged = error
    if damaged is not None:
        raise UsageError(f"{damaged} None before it can be read either. Start the run over with --force.")
    return None
