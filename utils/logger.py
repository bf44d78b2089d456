"""A run's log: lines on the console that leave progress bars alone, and the same lines in log.txt."""

import logging
import sys
from pathlib import Path

from tqdm import tqdm

from utils.distributed import is_main

log = logging.getLogger("usrn")


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr if record.levelno >= logging.WARNING else sys.stdout)
        sys.stdout.flush()


def start_log(path: Path | None) -> None:
    """Send lines to the console and, with a path, to that file. Other ranks than the first stay silent."""
    log.handlers.clear()
    log.propagate = False
    log.setLevel(logging.INFO if is_main() else logging.CRITICAL)
    if not is_main():
        return
    log.addHandler(_Console())
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(to_file)
    logging.captureWarnings(True)


def progress(iterable=None, **kwargs) -> tqdm:
    """A progress bar on the first rank's terminal; silent elsewhere and where output is no terminal."""
    return tqdm(iterable, disable=None if is_main() else True, dynamic_ncols=True, leave=False, **kwargs)
