"""Where a run goes on: which checkpoint, and whether it is one of this run."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError
from torch import Tensor

from trainer.subclasses.table import TABLE
from utils.checkpoint import fingerprint, load_checkpoint
from utils.config import USRN, Config, differing_keys
from utils.distributed import restarts
from utils.errors import UsageError, some
from utils.inputs import first_problem
from utils.logger import log

NEWEST, PREVIOUS = "checkpoint.pth", "checkpoint_previous.pth"


class Origin(NamedTuple):
    """A checkpoint that a run starts from: its file, and what ``load_checkpoint`` read."""

    path: Path
    checkpoint: dict[str, Any]

    @property
    def state(self) -> dict[str, Any] | None:
        """Where its run was; None for weights alone."""
        return self.checkpoint.get("resume")

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
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    confusion: Tensor
    labels: Tensor
    pseudo_labels: Tensor
    running: dict[str, Tensor]
    config: Json[dict[str, Any]]
    subclasses: str


def subclass_source(config: Config) -> str:
    """Fingerprint of the table of the subclass maps that a run trains on; "" where it trains on none."""
    table = config.subclass_dir / TABLE
    return fingerprint(table) if config.name == USRN and table.is_file() else ""


def identity(config: Config) -> dict[str, str]:
    """What a checkpoint says of its run: the configuration, and which subclass maps it trains on."""
    return {"config": json.dumps(config.model_dump()), "subclasses": subclass_source(config)}


def differences(state: dict, config: Config) -> list[str]:
    """In what a checkpoint's run (its ``resume``) differs from that of ``config`` so that results may."""
    found = differing_keys(json.loads(state["config"]), config)
    return found if state["subclasses"] == subclass_source(config) else [*found, "the subclass maps"]


def checkpoint_to_go_on_from(config: Config, resume: str | None, force: bool) -> Origin | None:
    """The checkpoint that a run starts from; None for a run from the beginning.

    Parameters
    ----------
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
            _refuse_if_differing(origin.path, state, config, advice)
        return origin
    origin = None if force else _newest_good(config)
    state = origin.state if origin is not None else None
    if state is None or (resume is None and state["finished"]):
        return None
    path = origin.path
    if state["subclasses"] != subclass_source(config):
        log.warning(f"{path}: was trained on subclass maps that have been made anew since; starting over")
        return None
    _refuse_if_differing(path, state, config, "Give this run another experim_name, or start it over with --force.")
    if resume is None:
        raise UsageError(
            f"{path}: an unfinished run is here, at iteration {state['iteration']}. Go on with --resume auto, or "
            "start it over with --force."
        )
    return origin


def _refuse_if_differing(path: Path, state: dict, config: Config, advice: str) -> None:
    differing = differences(state, config)
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
