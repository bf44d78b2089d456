"""USRN's command line: a configuration and what to do with it → one process per device → one stage."""

import argparse
import sys

STAGES = ("test", "save_feature", "clustering", "summary")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Unbiased Subclass Regularization for semi-supervised semantic segmentation.",
        epilog="Without a stage's flag the run is trained. Flags take --test, --test True and --test False alike.",
    )
    add = parser.add_argument
    add("-c", "--config", required=True, metavar="FILE", help="the run's configuration, JSON")
    add("-r", "--resume", metavar="FILE", help="a checkpoint; auto: the run's own, where there is one")
    _flag(add, "--test", "evaluate: IoU of every class, and a picture per validation image")
    _flag(add, "--save_feature", "stage 2: write the pixel features of the labelled images")
    _flag(add, "--clustering", "stage 3: cluster them into subclasses")
    _flag(add, "--summary", "print the baseline's scores beside this run's and where its files are")
    _flag(add, "--force", "do a finished stage again")
    add("--clustering_algorithm", choices=("balanced_kmeans", "normal_kmeans"), help="stage 3's algorithm")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key: --set trainer.epochs=5")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--processes", type=int, metavar="N", help="processes on this machine (default: one per device, up to n_gpu)")
    options = parser.parse_args(arguments)
    if sum(getattr(options, stage) for stage in STAGES) > 1:
        parser.error(f"one of {', '.join('--' + stage for stage in STAGES)} at a time")
    if options.processes is not None and options.processes < 1:
        parser.error("--processes must be at least 1")
    return options


def _flag(add, name: str, help: str) -> None:
    add(name, nargs="?", const=True, default=False, type=_boolean, metavar="True|False", help=help)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() in ("true", "1", "yes")


def main(arguments: list[str] | None = None) -> int:
    """Run the stage that the arguments name; the exit code."""
    options = parse(arguments)
    # Imported here, because torch takes seconds and --help should not.
    from utils.errors import UsageError

    try:
        run(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace) -> None:
    from utils.config_file import load_config

    if options.clustering_algorithm:
        options.set.append(f"clustering_algorithm={options.clustering_algorithm}")
    config = load_config(options.config, options.set)

    from trainer.stages import Options, run_stage
    from utils.distributed import choose_device, launch, process_count

    stage = next((name for name in STAGES if getattr(options, name)), "train")
    device = choose_device(options.device)
    processes = options.processes or process_count(config.n_gpu, device)
    if stage == "summary":
        processes = 1
    launch(run_stage, (stage, config, Options(options.resume, options.force)), processes, device)


if __name__ == "__main__":
    sys.exit(main())
