"""A run's log: lines on the console that leave progress bars alone, and the same lines in log.txt."""

import logging
import os
import sys
from pathlib import Path

from tqdm import tqdm

from utils.console import is_gone, print_what_it_can

log = logging.getLogger("usrn")


_YELLOW, _GREEN, _PLAIN = "\033[33m", "\033[32m", "\033[0m"


class _Console(logging.Handler):
    """Lines on stdout, warnings on stderr; on a terminal, warnings yellow and ``extra={"good": True}`` green."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        stream = sys.stderr if warning else sys.stdout
        colour = _YELLOW if warning else _GREEN if getattr(record, "good", False) else ""
        line = self.format(record)
        if colour and stream.isatty() and not os.environ.get("NO_COLOR"):
            line = colour + line + _PLAIN
        try:
            tqdm.write(line, file=stream)
            stream.flush()
        except OSError:
            is_gone(stream)


class _File(logging.FileHandler):
    """Lines in a file; where it can be written no longer, the console says so once and goes on alone."""

    def handleError(self, record: logging.LogRecord) -> None:
        log.removeHandler(self)
        log.warning(f"{self.baseFilename}: cannot be written ({sys.exc_info()[1]}); the lines go to the console alone")


def start_log(path: Path | None) -> None:
    """Send lines to the console and, with a path, to that file. Other ranks than the first stay silent."""
    from utils.distributed import is_main  # it imports torch, which processes that only read files do without

    print_what_it_can()
    log.handlers.clear()
    log.propagate = False
    log.setLevel(logging.INFO if is_main() else logging.CRITICAL)
    if not is_main():
        return
    log.addHandler(_Console())
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file = _File(path, encoding="utf-8", errors="backslashreplace")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(to_file)
    logging.captureWarnings(True)


def progress(iterable=None, **kwargs) -> tqdm:
    """A progress bar on the first rank's terminal; silent elsewhere and where output is no terminal."""
    from utils.distributed import is_main

    return tqdm(iterable, disable=None if is_main() else True, dynamic_ncols=True, leave=False, **kwargs)
