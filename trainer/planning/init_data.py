"""A user's own images: data set, configurations and what a run on them will be (docs/own_data.md)."""

import json
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloaders import open_data
from dataloaders.check import note_of_hot_pixels
from dataloaders.images import read_image
from dataloaders.own.make import UNFINISHED, OwnData, make_own_data
from dataloaders.own.masks import shown
from dataloaders.own.preview import PREVIEW, SHOWN, save_preview
from dataloaders.reading import read_mask
from dataloaders.sets.described import DESCRIPTION, MASKS, Description
from trainer.planning.budget import fit_to_minutes, scaled
from trainer.planning.plan import plan_run
from trainer.planning.proposal import MACHINES, propose_settings, reasons
from utils.config import BASELINE, USRN, Config
from utils.config_file import load_config
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
            _report(request, own)
            _draw(own, Path(workplace) / request.name, Path(PREVIEW))
        log.info(f"\nnothing is written but {Path(PREVIEW).absolute()}: masks over their images. Without --dry_run: go")
        return
    with sole_maker(root):
        _init_data(request, root, machine, device)
        (root / UNFINISHED).unlink()


def _init_data(request: Request, root: Path, machine: str, device: torch.device) -> None:
    shared = Path("configs/base") / f"{request.name}.json"
    runs = {kind: Path("configs") / f"{request.name}_{kind.lower()}.json" for kind in (BASELINE, USRN)}
    _check_free(request, root, [shared, *runs.values()])
    own = _make(request, root)
    _draw(own, root, root / PREVIEW)
    n_labelled, n_unlabelled = len(own.description.labelled), len(own.description.unlabelled)
    settings = propose_settings([image.size for image in own.images], n_labelled, n_unlabelled, MACHINES[machine])
    place, why = {"dataset": "custom", "data_dir": root.as_posix()}, reasons(settings, MACHINES[machine])
    _report(request, own)
    minutes = request.minutes or (MINUTES_WITHOUT_GPU if machine == device.type == "cpu" else None)
    if minutes:
        usrn = {"name": USRN, "experim_name": runs[USRN].stem, **place, **settings}
        why["trainer.epochs"] = _fit(settings, Config.model_validate(usrn), minutes, device)
    configs = shared.parents[1]
    configs.mkdir(exist_ok=True)
    with held(configs / LOCK, configs, wait=True):
        sweep(configs)
        _write_config(shared, {"$schema": "../schema.json", "//": why, **place, **settings})
        for kind, path in runs.items():
            keys = {"base": f"base/{shared.name}", "name": kind, "experim_name": path.stem}
            _write_config(path, {"$schema": "./schema.json", **keys})
    log.info("")
    for key, reason in why.items():
        log.info(f"decided: {key} {_value(settings, key)}: {reason}")
    log.info(f"\nmasks over their images, to see whether the classes are right: {root / PREVIEW}")
    log.info(f"written: {root}/, {shared}, {', '.join(map(str, runs.values()))}")
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
    log.info(f"\nnext: sh main.sh {request.name}")


def _fit(settings: dict[str, Any], config: Config, minutes: float, device: torch.device) -> str:
    """Give settings the length of a run that takes so long on this machine; the reason."""
    timed = config.model_copy(update={"trainer": config.trainer.model_copy(update={"minutes": minutes})})
    fit, times = fit_to_minutes(timed, open_data(timed), device)
    after = scaled(timed, fit)
    settings["trainer"] = {key: getattr(after.trainer, key) for key in settings["trainer"]}
    if "epoch_start_unsup" in settings.get("model", {}):
        settings["model"] = {**settings["model"], "epoch_start_unsup": after.model.epoch_start_unsup}
    slowest = {name: of_kind.parts[-1].seconds for name, of_kind in times.items() if of_kind.parts}
    seconds = ", ".join(f"{name} {value:.3g}" for name, value in slowest.items())
    return f"{minutes:g} minutes for all stages on this machine as it is now (seconds an iteration: {seconds})"


def _value(settings: dict[str, Any], key: str) -> Any:
    """The value of a key such as ``trainer.epochs``."""
    for name in key.split("."):
        settings = settings[name]
    return json.dumps(settings)


def _make(request: Request, root: Path) -> OwnData:
    return make_own_data(
        root,
        request.images,
        request.masks,
        class_file=request.classes,
        ignore=request.ignore,
        snap=request.snap,
        n_labelled=request.labelled,
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
    lines = (f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in keys.items())
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _report(request: Request, own: OwnData) -> None:
    split, pairs = own.split, own.pairs
    sizes, modes = [image.size for image in own.images], [image.mode for image in own.images]
    log.info(f"{request.images}: {len(pairs.images)} images; {_sizes(sizes)}; modes {_tally(modes)}")
    read_by = "colour" if own.by_colour else "value"
    log.info(f"{request.masks}: masks of {len(pairs.masks)} images; modes {_tally(own.mask_modes)}; read by {read_by}")
    if pairs.strays:
        names = [path.name for path in pairs.strays]
        log.warning(f"{len(names)} masks have no image and are left out: {some(names)}")
    for note in [*own.classes.notes, *_image_notes(own)]:
        log.info(f"assumed: {note}")
    log.info(
        f"split: {len(split.labelled)} labelled, {len(split.validation)} validation, "
        f"{len(own.description.unlabelled)} unlabelled images"
        + (f", of which {len(split.spare)} have masks that are left out (--labelled)" if split.spare else "")
        + ("; validation is the folder of that name" if split.by_folder else "")
    )

    labelled = _sum(own, split.labelled)
    in_labelled, in_validation = _images_with(own, split.labelled), _images_with(own, split.validation)
    width = max(len("(no class)"), *map(len, own.classes.names))
    heading = "colour" if own.by_colour else "value"
    log.info(f"\nclass  {'name':{width}}  {heading:>11}  labelled pixels  labelled images  validation images")
    for index, (name, value) in enumerate(zip(own.classes.names, own.classes.values, strict=True)):
        text = shown(value, own.by_colour)
        share = 100 * labelled[index] / max(1, labelled.total())
        images = f"{in_labelled[index]:15}  {in_validation[index]:17}"
        log.info(f"{index:5}  {name:{width}}  {text:>11}  {share:13.2f} %  {images}")
    log.info(_unclassed_row(own, labelled.total(), width))
    for what, counts in (("labelled", in_labelled), ("validation", in_validation)):
        missing = [name for index, name in enumerate(own.classes.names) if not counts[index]]
        if missing:
            log.warning(f"no {what} image has the class {some(missing)}")


def _unclassed_row(own: OwnData, with_class: int, width: int) -> str:
    """The table's last row: the values that are no class, and their share of all labelled pixels."""
    total = sum((own.unclassed[id_] for id_ in own.split.labelled), Counter())
    text = some([shown(value, own.by_colour) for value, _ in total.most_common()], 3) or "-"
    share = 100 * total.total() / max(1, total.total() + with_class)
    images = (sum(bool(own.unclassed[id_]) for id_ in ids) for ids in (own.split.labelled, own.split.validation))
    labelled, validation = images
    return f"       {'(no class)':{width}}  {text:>11}  {share:13.2f} %  {labelled:15}  {validation:17}"


def _image_notes(own: OwnData) -> list[str]:
    notes = []
    if own.pairs.series:
        id_, masks = next(iter(own.pairs.series.items()))
        notes.append(
            f"{len(own.pairs.series)} images have several masks, which are united, such as "
            f"{some([path.name for path in masks])} for {id_}"
        )
    if own.description.value_range:
        low, high = own.description.value_range
        notes.append(
            f"16-bit values go from {low} (black) to {high} (white), the range of all images; "
            f'"value_range" in {DESCRIPTION}'
        )
    hot = note_of_hot_pixels(own.images)
    notes += [hot] if hot else []
    undecided = sum(image.is_turned and image.size == image.stored_size for image in own.images)
    if undecided:
        notes.append(
            f"{undecided} images have an EXIF orientation that their size does not tell; masks are taken as drawn on "
            "what viewers show"
        )
    return notes


def _sum(own: OwnData, ids: list[str]) -> Counter:
    total: Counter = Counter()
    for id_ in ids:
        total.update(own.pixels[id_])
    return total


def _images_with(own: OwnData, ids: list[str]) -> Counter:
    return Counter(index for id_ in ids for index in own.pixels[id_])


def _sizes(sizes: list[tuple[int, int]]) -> str:
    different = Counter(sizes)
    if len(different) == 1:
        return f"all {sizes[0][1]} x {sizes[0][0]}"
    heights, widths = zip(*sizes, strict=True)
    return f"{len(different)} sizes, {min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high"


def _tally(values: list[str]) -> str:
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common())
