"""The console, whatever it can show and as long as it is there."""

import os
import sys
from typing import TextIO


def print_what_it_can() -> None:
    """Have stdout and stderr show what their encoding lacks as ``\\xe4``, in the place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def complain(message: str) -> None:
    """A line on stderr."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        is_gone(sys.stderr)


def is_gone(stream: TextIO) -> None:
    """Let a stream whose terminal was closed, or whose reader has ended, lead nowhere: the work goes on without it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
