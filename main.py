"""USRN's command line: a configuration and what to do with it → one process per device → one stage."""

import argparse
import re
import sys
from pathlib import Path

STAGES = ("test", "save_feature", "clustering", "summary", "check_data", "plan", "predict", "export")
IN_ONE_PROCESS = ("summary", "check_data", "plan", "export")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Unbiased Subclass Regularization for semi-supervised semantic segmentation.",
        epilog="Without a stage's flag the run is trained. Flags take --test, --test True and --test False alike.",
    )
    add = parser.add_argument
    add("-c", "--config", metavar="FILE", help="the run's configuration, JSON")
    add("-r", "--resume", metavar="FILE", help="a checkpoint; auto: the run's own, where there is one")
    _flag(add, "--test", "evaluate: IoU of every class, and a picture per validation image")
    _flag(add, "--save_feature", "stage 2: write the pixel features of the labelled images")
    _flag(add, "--clustering", "stage 3: cluster them into subclasses")
    _flag(add, "--summary", "print the baseline's scores beside this run's and where its files are")
    _flag(
        add, "--check_data", "read every image and mask of the run once and list what is wrong; exit code 1 if any is"
    )
    _flag(add, "--plan", "say what the run will do, and how long and with how much memory; write nothing")
    add("--predict", metavar="PATH", help="predict an image, the images of a folder, or those a .txt file names a line")
    add("--export", choices=("onnx", "exported_program"), help="write the network for other programs")
    add("--output", metavar="PATH", help="where --predict (a folder) and --export (a file) write; default: the run's")
    _flag(add, "--force", "do a finished stage again; with --init_data, replace what it wrote")
    add("--clustering_algorithm", choices=("balanced_kmeans", "normal_kmeans"), help="stage 3's algorithm")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key: --set trainer.epochs=5")
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
    own.add_argument("--labelled", type=int, metavar="N", help="train with N masks only; default: all")
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        if isinstance(value, str) and not value.strip():  # a script's variable, perhaps, that was never set
            parser.error(f"--{name} is empty")
    if options.study:
        if options.config or options.resume or options.force or options.jobs < 1:
            parser.error("--study goes with --plan, --jobs (at least 1), --part and --set alone")
    elif options.init_data:
        _check_own_data(parser, options)
    elif not options.config:
        parser.error("--config names the run's configuration; --init_data makes one for your own images")
    if sum(bool(getattr(options, stage)) for stage in STAGES) > 1:
        parser.error(f"one of {', '.join('--' + stage for stage in STAGES)} at a time")
    if options.output and not (options.predict or options.export):
        parser.error("--output goes with --predict or --export")
    if options.processes is not None and options.processes < 1:
        parser.error("--processes must be at least 1")
    return options


def _check_own_data(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.config or not options.masks or not options.name:
        parser.error("--init_data needs --masks and --name, and no --config")
    if options.ignore is not None:
        values = [] if options.ignore == ["none"] else options.ignore
        if not all(re.fullmatch("[0-9]{1,9}", value) for value in values):  # not ², which is a digit but no number
            parser.error("--ignore takes mask values, or the word none")
        options.ignore = [int(value) for value in values]
    if options.labelled is not None and options.labelled < 2:
        parser.error("--labelled must be at least 2")


def _flag(add, name: str, help: str) -> None:
    add(name, nargs="?", const=True, default=False, type=_boolean, metavar="True|False", help=help)


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2/8")
    return int(number), int(count)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() in ("true", "1", "yes")


def main(arguments: list[str] | None = None) -> int:
    """Run the stage that the arguments name; the exit code: 0 done, 2 refused, 75 stopped on request."""
    options = parse(arguments)
    # Imported here, because torch takes seconds and --help should not.
    from utils.errors import UsageError, system_errors
    from utils.stop import STOPPED, Stopped, interruptible

    try:
        with interruptible(), system_errors():
            return run(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped:
        return STOPPED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on, a training with --resume auto", file=sys.stderr)
        return STOPPED


def run(options: argparse.Namespace) -> int:
    import tempfile

    from utils.distributed import choose_device, is_first_started, launch, process_count

    tempfile.gettempdir()  # where there is none, this says so before hours are spent
    stage = next((name for name in STAGES if getattr(options, name)), "train")
    alone = bool(options.init_data or options.study) or stage in IN_ONE_PROCESS
    if alone and not is_first_started():
        return 0
    if options.init_data:
        init(options)
        return 0
    if options.study:
        from trainer.studies.study import run_study

        run_study(
            Path(options.study), jobs=options.jobs, part=options.part, plan=options.plan, overrides=tuple(options.set)
        )
        return 0

    from utils.config_file import load_config

    if options.clustering_algorithm:
        options.set.append(f"clustering_algorithm={options.clustering_algorithm}")
    config = load_config(options.config, options.set)
    if options.check_data:
        return check(config, options.processes)

    from trainer.stages import Options, run_stage

    device = choose_device(options.device)
    processes = None if alone else options.processes or process_count(config.n_gpu, device)
    stage_options = Options(options.resume, options.force, options.predict, options.export, options.output)
    launch(run_stage, (stage, config, stage_options), processes, device)
    return 0


def check(config, processes: int | None) -> int:
    from dataloaders import make_ready, open_data
    from dataloaders.check import check_data

    make_ready(config)
    report = check_data(config, open_data(config), processes)
    print(report.text())
    return 1 if report.wrong else 0


def init(options: argparse.Namespace) -> None:
    """Make a data set and its configurations of the user's own images."""
    import torch

    from trainer.planning.init_data import Request, init_data
    from utils.distributed import choose_device

    request = Request(
        images=Path(options.init_data),
        masks=Path(options.masks),
        name=options.name,
        classes=Path(options.classes) if options.classes else None,
        ignore=options.ignore,
        labelled=options.labelled,
        force=options.force,
    )
    here = choose_device("auto")
    machine = here if options.device == "auto" else options.device
    init_data(request, machine, torch.device(here if machine == "cuda" else "cpu"))


if __name__ == "__main__":
    sys.exit(main())
