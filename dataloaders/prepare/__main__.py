"""Command line of the data preparation: ``python3 -m dataloaders.prepare voc|cityscapes|splits``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dataloaders.prepare.cityscapes import prepare_cityscapes
from dataloaders.prepare.report import Report
from dataloaders.prepare.splits import import_splits
from dataloaders.prepare.voc import prepare_voc
from utils.console import complain, print_what_it_can
from utils.cores import cores
from utils.errors import UsageError, system_errors
from utils.stop import STOPPED, interruptible

DONE, INCOMPLETE, REFUSED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code: 0 done, 1 files missing or unreadable, 2 refused, 75 stopped."""
    options = _parser().parse_args(arguments)
    print_what_it_can()
    try:
        with interruptible(), system_errors():
            if options.data_set == "splits":
                print(import_splits(options.source, options.to, options.validation).text())
                return DONE
            report = _run(options)
    except UsageError as error:
        return _stop(f"error: {error}", REFUSED)
    except KeyboardInterrupt:
        return _stop("stopped; the same command goes on from here", STOPPED)
    print(report.text())
    return INCOMPLETE if report.problems else DONE


def _run(options: argparse.Namespace) -> Report:
    if options.data_set == "voc":
        return prepare_voc(
            options.root,
            options.source,
            download=options.download,
            check=options.check,
            workers=options.workers,
        )
    return prepare_cityscapes(
        options.root,
        options.source,
        check=options.check,
        uncompressed=options.uncompressed,
        workers=options.workers,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m dataloaders.prepare",
        description="Lay out a data set as the training reads it. Safe to interrupt and to repeat.",
    )
    data_sets = parser.add_subparsers(dest="data_set", required=True)
    voc = data_sets.add_parser("voc", help="PASCAL VOC 2012 with the augmented training set")
    cityscapes = data_sets.add_parser("cityscapes", help="Cityscapes, 19 classes")
    for command, root in ((voc, "dataset/voc"), (cityscapes, "dataset/cityscapes")):
        command.add_argument(
            "--root", type=Path, default=Path(root), help="folder of the prepared data (default: %(default)s)"
        )
        command.add_argument(
            "--source",
            type=Path,
            nargs="+",
            default=[],
            help="folders that hold the downloaded archives or the extracted trees (default: the root)",
        )
        command.add_argument(
            "--check",
            action="store_true",
            help="change nothing; read every file and list what is missing or unreadable",
        )
        command.add_argument(
            "--workers",
            type=_positive,
            default=cores(),
            help="processes (default: %(default)s, the cores)",
        )
    voc.add_argument("--download", action="store_true", help="first fetch VOC 2012 and SBD into the root (3.4 GB)")
    splits = data_sets.add_parser("splits", help="split lists of UniMatch, U2PL, CPS or ST++, made into ours")
    splits.add_argument("--from", dest="source", type=Path, required=True, metavar="FOLDER", help="their two lists")
    splits.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER", help="dataloaders/voc_splits0, dataloaders/city_splits0, …"
    )
    splits.add_argument("--validation", type=Path, metavar="FILE", help="list of validation images to check against")
    storage = cityscapes.add_mutually_exclusive_group()
    storage.add_argument(
        "--uncompressed",
        action="store_true",
        default=None,
        help="store training images and masks without compression: 25 GB more, read several times faster (default: "
        "where that leaves as much of the disk free again)",
    )
    storage.add_argument(
        "--compressed",
        dest="uncompressed",
        action="store_false",
        default=None,
        help="leave them as they are",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number of processes; at least 1")
    return number


def _stop(message: str, code: int) -> int:
    complain(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
