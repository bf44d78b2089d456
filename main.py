"""USRN's command line: a configuration and what to do with it → one process per device → one stage."""

import argparse
import re
import sys
from dataclasses import asdict
from pathlib import Path

from trainer.stage_table import STAGES
from utils.cores import share_cores, wait_briefly

DEFAULT_CONFIG = "configs/config.json"  # the original's
FLAGS = [stage for stage in STAGES.values() if stage.help]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Unbiased Subclass Regularization for semi-supervised semantic segmentation.",
        epilog="Without a stage's flag the run is trained. Flags take --test, --test True and --test False alike.",
    )
    add = parser.add_argument
    add("-c", "--config", metavar="FILE", help=f"the run's configuration, JSON ({DEFAULT_CONFIG}, where it is there)")
    add("-r", "--resume", metavar="FILE", help="a checkpoint; auto: the run's own, where there is one")
    for stage in FLAGS:
        if stage.value:
            add(f"--{stage.name}", help=stage.help, **stage.value)
        else:
            _flag(add, *filter(None, [stage.short]), f"--{stage.name}", help=stage.help)
    add("--which", choices=("best", "last"), help="with --test: the best model or the one at the end; default: both")
    add("--output", metavar="PATH", help="where --predict (a folder) and --export (a file) write; default: the run's")
    _flag(add, "--force", help="do a finished stage again; with --init_data, replace what it wrote")
    algorithms = ("balanced_kmeans", "normal_kmeans")
    add("-ca", "--clustering_algorithm", choices=algorithms, help="stage 3's algorithm")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key: --set trainer.epochs=5")
    add("--minutes", type=_minutes, metavar="N", help="time for the whole run: its schedule is scaled to it")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--processes", type=int, metavar="N", help="processes on this machine (default: one per device, up to n_gpu)")
    study = parser.add_argument_group("studies (docs/studies.md)")
    study.add_argument("--study", metavar="FILE", help="runs x seeds x settings: do what is missing, write the table")
    study.add_argument("--jobs", type=int, default=1, metavar="N", help="stages at once on this machine, one per GPU")
    study.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help="the I-th of N shares of the seeds")
    own = parser.add_argument_group("one's own data (docs/own_data.md)")
    own.add_argument("--init_data", metavar="FOLDER", help="images: make a data set and configurations of them")
    own.add_argument("--masks", metavar="FOLDER", help="the masks of some of the images")
    own.add_argument("--name", help="name of the data set and its runs: configs/<name>_{baseline,usrn}.json")
    own.add_argument("--classes", metavar="FILE", help="the classes: a name a line, optionally with red green blue")
    own.add_argument("--ignore", nargs="+", metavar="VALUE", help="mask values that are no class; none: all are one")
    _flag(
        own.add_argument, "--snap", help="take values of compression and smoothing to the nearest main value or colour"
    )
    _flag(own.add_argument, "--dry_run", help="print the decisions, draw masks over images, and write nothing else")
    own.add_argument("--labelled", type=int, metavar="N", help="train with N masks only; default: all")
    own.add_argument("--folds", type=int, metavar="N", help="a study over N folds of the masks, in place of one split")
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        if isinstance(value, str) and not value.strip():  # a script's variable, perhaps, that was never set
            parser.error(f"--{name} is empty")
    if options.study:
        if options.config or options.resume or options.force or options.jobs < 1:
            parser.error("--study goes with --plan, --jobs (at least 1), --part and --set alone")
    elif options.init_data:
        _check_own_data(parser, options)
    elif not options.config and Path(DEFAULT_CONFIG).is_file():
        options.config = DEFAULT_CONFIG
    elif not options.config:
        parser.error("--config names the run's configuration; --init_data makes one for your own images")
    if sum(bool(getattr(options, stage.name)) for stage in FLAGS) > 1:
        parser.error(f"one of {', '.join('--' + stage.name for stage in FLAGS)} at a time")
    if options.which and (not options.test or options.resume):
        parser.error("--which goes with --test, and without --resume")
    if options.output and not (options.predict or options.export):
        parser.error("--output goes with --predict or --export")
    if options.processes is not None and options.processes < 1:
        parser.error("--processes must be at least 1")
    return options


def _check_own_data(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    again = options.init_data.endswith(".json")
    if options.config or not (options.masks or again) or not options.name:
        parser.error("--init_data needs --masks and --name, and no --config")
    if again and (options.classes or options.ignore or options.snap or options.labelled or options.folds):
        parser.error("--init_data with a dataset.json takes classes, values and lists from there; edit the file")
    if options.ignore is not None:
        values = [] if options.ignore == ["none"] else options.ignore
        if not all(re.fullmatch("[0-9]{1,9}", value) for value in values):  # not ², which is a digit but no number
            parser.error("--ignore takes mask values, or the word none")
        options.ignore = [int(value) for value in values]
    if options.labelled is not None and options.labelled < 2:
        parser.error("--labelled must be at least 2")
    if options.folds is not None and (options.folds < 2 or options.labelled):
        parser.error("--folds must be at least 2, and trains with all masks but those of a fold: without --labelled")


def _flag(add, *names: str, help: str) -> None:
    add(*names, nargs="?", const=True, default=False, type=_boolean, metavar="True|False", help=help)


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2/8")
    return int(number), int(count)


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return minutes


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() in ("true", "1", "yes")


def main(arguments: list[str] | None = None) -> int:
    """Run the stage that the arguments name; the exit code: 0 done, 2 refused, 75 stopped on request."""
    options = parse(arguments)
    wait_briefly()
    # Imported here, because torch takes seconds and --help should not.
    from utils.console import complain, print_what_it_can
    from utils.errors import UsageError, system_errors
    from utils.stop import STOPPED, Stopped, interruptible

    print_what_it_can()
    try:
        with interruptible(), system_errors():
            return run(options)
    except UsageError as error:
        complain(f"error: {error}")
        return 2
    except Stopped:
        return STOPPED
    except KeyboardInterrupt:
        complain("interrupted; the same command goes on, a training with --resume auto")
        return STOPPED


def run(options: argparse.Namespace) -> int:
    import tempfile

    from utils.distributed import choose_device, is_first_started, launch, process_count

    tempfile.gettempdir()  # where there is none, this says so before hours are spent
    stage = next((stage for stage in FLAGS if getattr(options, stage.name)), STAGES["train"])
    alone = bool(options.init_data or options.study) or stage.one_process
    if alone and not is_first_started():
        return 0
    if options.init_data:
        init(options)
        return 0
    if options.minutes:
        options.set.append(f"trainer.minutes={options.minutes}")
    if options.study:
        from trainer.studies.study import run_study

        run_study(
            Path(options.study), jobs=options.jobs, part=options.part, plan=options.plan, overrides=tuple(options.set)
        )
        return 0

    from utils.config import flat_settings
    from utils.config_file import load_config

    if options.clustering_algorithm:
        options.set.append(f"clustering_algorithm={options.clustering_algorithm}")
    config = load_config(options.config, options.set)

    from trainer.stages import Options, run_stage

    share_cores(1)  # processes that this one starts share them anew
    device = choose_device(options.device)
    processes = None if alone else options.processes or process_count(config.n_gpu, device)
    stage_options = Options(
        resume=options.resume,
        force=options.force,
        predict=options.predict or "",
        export=options.export or "",
        output=options.output,
        which=options.which,
        processes=options.processes,
    )
    command = {"stage": stage.name, **flat_settings(config), **asdict(stage_options)}
    return launch(run_stage, (stage.name, config, stage_options), processes, device, command) or 0


def init(options: argparse.Namespace) -> None:
    """Make a data set and its configurations of the user's own images."""
    import torch

    from dataloaders.sets.described import read_description
    from trainer.planning.init_data import Request, init_data
    from utils.distributed import choose_device
    from utils.errors import UsageError

    given = read_description(Path(options.init_data)) if options.init_data.endswith(".json") else None
    masks = options.masks or (given and given.masks)
    if not masks:
        raise UsageError(f"{options.init_data}: does not say where the masks are; --masks does.")
    request = Request(
        images=Path(given.images if given else options.init_data),
        masks=Path(masks),
        given=given,
        name=options.name,
        classes=Path(options.classes) if options.classes else None,
        ignore=options.ignore,
        snap=options.snap,
        labelled=options.labelled,
        folds=options.folds,
        minutes=options.minutes,
        force=options.force,
        dry_run=options.dry_run,
    )
    here = choose_device("auto")
    machine = here if options.device == "auto" else options.device
    init_data(request, machine, torch.device(here if machine == "cuda" else "cpu"))


if __name__ == "__main__":
    sys.exit(main())
