"""The trained network of a run: which checkpoint it is in, and the network that a checkpoint holds."""

from pathlib import Path

import torch

from dataloaders import SegmentationData
from models import Segmentor
from trainer.loop.assembly import make_network
from trainer.loop.resume import BEST, NEWEST, Origin, is_lost
from trainer.record import Record
from utils.checkpoint import load_checkpoint, load_weights
from utils.commands import command
from utils.config import Config
from utils.errors import UsageError


def load_network(config: Config, data: SegmentationData, path: Path, device: torch.device) -> Segmentor:
    """The network of a configuration with a checkpoint's weights; it says itself how many subclasses it has."""
    state_dict = load_checkpoint(path)["state_dict"]
    n_subclasses = None
    if config.has_subclasses:
        head = state_dict.get("classifier_SubCls.1.weight")
        if head is None or not head.ndim:
            raise UsageError(
                f"{path}: this checkpoint has no subclass branch, as the network of {config.experim_name} (USRN) has. "
                "Give it the configuration of the baseline that it is of, or name another with --resume."
            )
        n_subclasses = len(head)
    network = make_network(config, len(data.classes), n_subclasses)
    load_weights(network, state_dict, path)
    return network.to(device)


def best_model(config: Config, resume: str | None) -> Path:
    """The checkpoint that ``resume`` names, or the best one of a run that is done.

    Raises
    ------
    UsageError
        There is none, it is cut off, or the run is not done.
    """
    path = Path(resume) if resume and resume != "auto" else config.run_dir / BEST
    if not resume and _is_unfinished(config.run_dir):
        so_far = f", or take the best model so far with --resume {path}" if path.is_file() else ""
        raise UsageError(
            f"{config.experim_name}: its training is not finished. Go on with it "
            f"({command('--resume auto', config.run_dir, config)}){so_far}."
        )
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such checkpoint. Train the run first "
            f"(python3 main.py {config.arguments}), or name another with --resume."
        )
    if path == config.run_dir / BEST and is_lost(path):
        raise UsageError(
            f"{path}: is cut off or damaged. Put the whole file back, or let the training write it again: python3 "
            f"main.py --resume auto {config.arguments}"
        )
    return path


def last_model(config: Config) -> Path:
    """The checkpoint of the end of a run's schedule.

    Raises
    ------
    UsageError
        The run is not done.
    """
    newest = config.run_dir / NEWEST
    if not newest.is_file() or _is_unfinished(config.run_dir):
        raise UsageError(
            f"--which last: the training of {config.experim_name} is not finished. Go on with it: "
            + command("--resume auto", config.run_dir, config)
        )
    return newest


def last_beside_best(config: Config) -> Path | None:
    """The checkpoint of the end of a finished run, where its model is not the best one; else None."""
    newest = config.run_dir / NEWEST
    if not newest.is_file():
        return None
    made = Record(config.run_dir, "train").made
    if "not_improved" in made:
        return newest if made["not_improved"] > 0 else None
    state = Origin.read(newest).state  # the record is of before, or none
    return newest if state is not None and state["finished"] and state["not_improved"] > 0 else None


def refuse_unfinished_baseline(config: Config) -> None:
    """Refuse a run that starts from its baseline (``"pretrained": "baseline"``) while that is not trained."""
    if config.pretrained == "baseline" and _is_unfinished(config.baseline_dir):
        raise UsageError(
            f'{config.baseline_dir}: its training is not finished, from which "pretrained": "baseline" starts. Go on '
            f"with it: {command('--resume auto', config.baseline_dir, config)}"
        )


def _is_unfinished(run_dir: Path) -> bool:
    record, newest = Record(run_dir, "train"), run_dir / NEWEST
    if record.is_begun or record.entry is not None:
        return record.is_begun
    state = Origin.read(newest).state if newest.is_file() else None  # of a folder without a record
    return state is not None and not state["finished"]
