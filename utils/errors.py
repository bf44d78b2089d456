"""The one exception that a user may see, and what the system refuses made into it."""

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_ADVICE = {
    errno.ENOSPC: "Make room, and give the same command again.",
    errno.EDQUOT: "Make room, and give the same command again.",
    errno.EFBIG: "Files of this size are not allowed here (ulimit -f). Give the same command again where they are.",
    errno.EMFILE: "Raise the limit (ulimit -n 4096), or set num_workers lower.",
    errno.ENFILE: "Close other programs, or set num_workers lower.",
    errno.ENOMEM: "Close other programs, or set num_workers or data.cache_gb lower.",
    errno.EROFS: "Name a folder that can be written to.",
    errno.EIO: "The disk or the network file system has failed.",
}


class UsageError(Exception):
    """Something the user can put right: says what is wrong, where, and what to do.

    ``main.py`` prints the message without a traceback and exits with code 2.
    """

    def __init__(self, message: str):
        # A data-loader worker re-raises with its own traceback in the text: the user gets the message alone.
        super().__init__(message.rpartition("UsageError: ")[2].strip())


def some(items: Sequence, most: int = 5, separator: str = ", ") -> str:
    """The first items of a message, and how many more there are: ``a, b and 7 more``."""
    shown = separator.join(map(str, items[:most]))
    return shown + (f" and {len(items) - most:,} more" if len(items) > most else "")


def first_line(error: BaseException) -> str:
    """What an error of somebody else's code says, as far as a message of ours can hold it; its type if it is silent."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class NotWrittenError(UsageError):
    """A file cannot be written: the disk is full, or the folder not to be written to."""


class NotFiniteError(UsageError):
    """A network gives logits that are not finite."""


@contextmanager
def system_errors(what: object = None) -> Iterator[None]:
    """Raise what the system refuses inside the block (no room, no permission, no descriptors) as a ``UsageError``.

    ``what`` is the file or folder that is at work, for errors that do not say it.
    """
    try:
        yield
    except OSError as error:
        message = _message(error, what)
        if message is None:
            raise
        raise UsageError(message) from error
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{error.object!r}: cannot be written in the {error.encoding} of this system. Set PYTHONUTF8=1."
        ) from error


def _message(error: OSError, what: object) -> str | None:
    """The message for the user; None where the error is not known to be the system's."""
    text = str(error).strip().splitlines()[-1] if str(error).strip() else ""
    if "No usable temporary directory" in text:
        return f"{text.partition(': ')[2] or text}. Set TMPDIR to a folder that can be written to."
    # A data-loader worker's error has its number in the text alone.
    said = re.search(r"\[Errno (\d+)\]", text)
    number = error.errno or (int(said[1]) if said else None)
    where = error.filename if error.filename is not None else what
    if number is None or (where is None and number not in _ADVICE):
        return None
    reason = os.strerror(number)
    advice = _ADVICE.get(number, "")
    return f"{where}: {reason}. {advice}" if where is not None else f"{reason}. {advice}"
