"""A user's own images: data set, configurations and what a run on them will be (docs/own_data.md)."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloaders import open_data
from dataloaders.images import read_image
from dataloaders.own.make import UNFINISHED, OwnData, make_own_data
from dataloaders.own.preview import PREVIEW, SHOWN, save_preview
from dataloaders.reading import read_mask
from dataloaders.sets.described import DESCRIPTION, MASKS, Description
from trainer.evaluation.recommendation import SMALL
from trainer.evaluation.statistics import FEWEST
from trainer.loop.assembly import PRETRAINED
from trainer.planning.budget import fit_to_minutes, scaled
from trainer.planning.findings import report_findings
from trainer.planning.plan import plan_run
from trainer.planning.proposal import MACHINES, Decision, as_configuration, propose, propose_start
from trainer.planning.rehearsal import planned_validations
from utils.config import BASELINE, USRN, Config, flat_settings
from utils.config_file import COMMENT, load_config
from utils.config_sections import ModelConfig
from utils.errors import UsageError, some
from utils.files import sweep, write_whole
from utils.folders import sole_maker
from utils.lock import LOCK, held
from utils.logger import log, start_log
from utils.palette import palette_of

MINUTES_WITHOUT_GPU = 30


@dataclass(frozen=True)
class Request:
    """What the command line says.

    Attributes
    ----------
    images, masks
        The user's folders.
    name
        Of the data set and its two runs.
    classes, ignore, snap, labelled
        As ``make_own_data`` takes them.
    force
        Replace what an earlier call with this name wrote.
    dry_run
        Say and draw what was decided, and write nothing else.
    minutes
        Time for a run; None: 30 minutes on a machine without a GPU, the usual number of iterations on one with.
    folds
        Make a study of so many folds of the images with masks.
    given
        An earlier call's ``dataset.json``, perhaps edited, in place of decisions.
    """

    images: Path
    masks: Path
    name: str
    classes: Path | None = None
    ignore: list[int] | None = None
    snap: bool = False
    labelled: int | None = None
    force: bool = False
    dry_run: bool = False
    minutes: float | None = None
    folds: int | None = None
    given: Description | None = None


def init_data(request: Request, machine: str, device: torch.device) -> None:
    """Write ``dataset/<name>`` and its configurations, below the working folder, and say what came out.

    The settings are for the ``machine``, "cuda" or "cpu"; ``device`` is what there is here to try them on.
    """
    start_log(None)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", request.name, re.ASCII):
        raise UsageError(f"--name {request.name!r}: use letters, digits, - and _ only; runs and files are named by it.")
    if request.minutes and machine != device.type:
        raise UsageError(
            "--minutes: iterations are timed on the machine that trains, which is another one than this. Leave it out "
            "here, and give it to main.sh there."
        )
    root = Path("dataset") / request.name
    if request.dry_run:
        with tempfile.TemporaryDirectory() as workplace:
            own = _make(request, Path(workplace) / request.name)
            report_findings(own, request.images, request.masks)
            _draw(own, Path(workplace) / request.name, Path(PREVIEW))
        log.info(
            f"\nnothing is written but {Path(PREVIEW).absolute()}: masks over their images. The same "
            "command without --dry_run makes the data set"
        )
        return
    with sole_maker(root):
        _init_data(request, root, machine, device)
        (root / UNFINISHED).unlink()


def _init_data(request: Request, root: Path, machine: str, device: torch.device) -> None:
    shared = Path("configs/base") / f"{request.name}.json"
    runs = {kind: Path("configs") / f"{request.name}_{kind.lower()}.json" for kind in (BASELINE, USRN)}
    study = Path("configs") / f"{request.name}_folds.json"
    _check_free(request, root, [shared, *runs.values(), study])
    own = _make(request, root)
    _draw(own, root, root / PREVIEW)
    folds, n_unlabelled = own.description.folds, len(own.description.unlabelled)
    n_labelled = len(own.description.labelled)
    if folds:  # as many in each; in a smaller fold one joins the unlabelled images
        n_labelled = min(n_labelled, sum(map(len, folds)) - max(map(len, folds)))
    imagenet = _imagenet_is_to_be_had(machine, device)
    sizes = [image.size for image in own.images]
    decisions = propose(sizes, n_labelled, n_unlabelled, MACHINES[machine], imagenet=imagenet)
    place = {"dataset": "custom", "data_dir": root.as_posix()}
    report_findings(own, request.images, request.masks)
    minutes = request.minutes or (MINUTES_WITHOUT_GPU if machine == device.type == "cpu" else None)
    if minutes:
        usrn = {"name": USRN, "experim_name": runs[USRN].stem, **place, **as_configuration(decisions)}
        decisions = _fit(decisions, Config.model_validate(usrn), minutes, device)
    settings = as_configuration(decisions)
    of_usrn = propose_start(settings)
    configs = shared.parents[1]
    configs.mkdir(exist_ok=True)
    with held(configs / LOCK, configs, wait=True):
        sweep(configs)
        _write_config(shared, {"$schema": "../schema.json", **_reasons(decisions), **place, **settings})
        for kind, path in runs.items():
            keys = {"base": f"base/{shared.name}", "name": kind, "experim_name": path.stem}
            own_keys = of_usrn if kind == USRN else []
            _write_config(
                path, {"$schema": "./schema.json", **_reasons(own_keys), **keys, **as_configuration(own_keys)}
            )
        if folds:
            _write_config(study, _study_of(request.name, runs, len(folds)))
        else:
            study.unlink(missing_ok=True)  # of an earlier call
    log.info("")
    for decision in decisions:
        log.info(f"decided: {decision}")
    for decision in of_usrn:
        log.info(f"decided for {USRN} alone: {decision}")
    log.info(f"\nmasks over their images, to see whether the classes are right: {root / PREVIEW}")
    written = [shared, *runs.values(), *([study] if folds else [])]
    log.info(f"written: {root}/, {', '.join(map(str, written))}")
    without = "with" if machine == "cuda" else "without"
    log.info(f"settings for a machine {without} a GPU; --device cuda or --device cpu asks for the one or the other\n")
    config = load_config(runs[USRN])
    plan_run(config, open_data(config), device, timed=machine == device.type and not minutes)
    if minutes:
        log.info(f"  {'time:':12} about {minutes:g} min for all stages; --minutes asks for another time")
    earlier = [path for path in (Path("saved") / run.stem for run in runs.values()) if path.exists()]
    if earlier:
        log.warning(
            f"{some(earlier)}: of an earlier data set of this name; sh main.sh {request.name} --force replaces it"
        )
    if (earlier_study := Path("saved/studies") / study.stem).exists():
        log.warning(f"{earlier_study}: of an earlier data set of this name; move it away before the study of this one")
    _say_what_is_next(request, own, study, f", about {minutes * len(folds):g} min" if minutes and folds else "")


def _imagenet_is_to_be_had(machine: str, device: torch.device) -> bool:
    """Whether the published network's weights are; another machine, for which settings are made here, may have them."""
    if machine != "cuda" or machine != device.type:
        return True
    from models.imagenet import are_to_be_had  # torchvision takes seconds to import

    return are_to_be_had(ModelConfig().layers, PRETRAINED)


def _say_what_is_next(request: Request, own: OwnData, study: Path, time: str) -> None:
    n_validation, n_masked = len(own.split.validation), len(own.pairs.masks)
    if folds := own.split.folds:
        log.info(f"\nnext: python3 main.py --study {study}, which trains both on each of {len(folds)} folds{time}")
        log.info("      and ends with the better one of the two and a model of it to use")
        log.info(f"or: sh main.sh {request.name}, for the split above alone, in a share of the time")
        return
    few = f"; fewer than {FEWEST} cannot tell which model is better" * (n_validation < FEWEST)
    if n_validation < SMALL and not (own.split.by_folder or request.given):
        option = f"--folds {min(5, n_masked)}"
        log.info(
            f"\nvalidation images: only {n_validation}, so that scores depend on which these are{few}. {option} makes "
            f"a study in which each of the {n_masked} images with a mask is validated once: the same command, with "
            f"{option} --force"
        )
    log.info(f"\nnext: sh main.sh {request.name}")


def _study_of(name: str, runs: dict[str, Path], folds: int) -> dict[str, Any]:
    """A study of both runs that validates every image with a mask once."""
    return {
        "question": f"{name}: what does {USRN} change, where each image with a mask is validated once?",
        "baseline": runs[BASELINE].name,
        "seeds": [Config.model_fields["random_seed"].default],
        "folds": folds,
        "variants": {kind if kind == USRN else kind.lower(): {"config": path.name} for kind, path in runs.items()},
    }


def _fit(decisions: list[Decision], config: Config, minutes: float, device: torch.device) -> list[Decision]:
    """The decisions of ``config`` with the length of a run that takes so long on this machine."""
    timed = config.model_copy(update={"trainer": config.trainer.model_copy(update={"minutes": minutes})})
    fit, times = fit_to_minutes(timed, open_data(timed), device)
    after = scaled(timed, fit)
    values = flat_settings(after)
    slowest = {name: of_kind.parts[-1].seconds for name, of_kind in times.items() if of_kind.parts}
    seconds = ", ".join(f"{name} {value:.3g}" for name, value in slowest.items())
    why = {
        "trainer.epochs": f"{minutes:g} minutes for all stages on this machine as it is now (seconds an iteration: "
        f"{seconds}); it is multiplied by floor(num_images_all / n_labeled_examples)",
        "trainer.val_per_epochs": f"{planned_validations(after)} validations, which take a fifth of the time at "
        "most, and a checkpoint about as often",
    }
    return [
        Decision(
            {key: values[key] for key in decision.settings}, why.get(next(iter(decision.settings)), decision.reason)
        )
        for decision in decisions
    ]


def _reasons(decisions: list[Decision]) -> dict[str, dict[str, str]]:
    """The comment key of a configuration that has these decisions; nothing where there are none."""
    return {COMMENT: {decision.keys: decision.reason for decision in decisions}} if decisions else {}


def _make(request: Request, root: Path) -> OwnData:
    return make_own_data(
        root,
        request.images,
        request.masks,
        class_file=request.classes,
        ignore=request.ignore,
        snap=request.snap,
        n_labelled=request.labelled,
        n_folds=request.folds,
        given=request.given,
    )


def _draw(own: OwnData, root: Path, path: Path) -> None:
    """The labelled images with most classes under their masks."""
    description = own.description
    palette = palette_of(tuple(description.colours))
    scenes = []
    for id_ in sorted(own.split.labelled, key=lambda id_: -len(own.pixels[id_]))[:SHOWN]:
        mask = read_mask(root / MASKS / f"{id_}.png", len(description.classes))
        image_path = Path(description.images) / description.labelled[id_]
        image = read_image(image_path, mask_size=mask.shape, value_range=description.value_range)
        scenes.append((image, mask.astype(np.uint8)))
    save_preview(path, scenes, description.classes, palette)


def _check_free(request: Request, root: Path, configs: list[Path]) -> None:
    if (root / UNFINISHED).is_file():  # the work of a call that was killed, which had found the place free
        return
    ours = (root / DESCRIPTION).is_file()
    there = [path for path in [*configs, root] if path.exists()]
    if there and not ours:
        raise UsageError(f"--name {request.name}: {some(there)} is there, and not from --init_data. Take another name.")
    if there and not request.force:
        raise UsageError(
            f"--name {request.name}: {some(there)}: there already, perhaps with changes of yours. Take another name, "
            "or replace them with --force."
        )


def _write_config(path: Path, keys: dict[str, Any]) -> None:
    """A key a line, and a reason a line."""
    lines = []
    for key, value in keys.items():
        text = json.dumps(value, indent=4).replace("\n", "\n    ") if key == COMMENT else json.dumps(value)
        lines.append(f"    {json.dumps(key)}: {text}")
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")
