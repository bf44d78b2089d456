"""A request to stop, by SIGTERM, SIGHUP or Ctrl-C: heard at once, answered where the work can be put down."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 75  # EX_TEMPFAIL of sysexits.h
"""Exit code of a command that was asked to stop and can go on; the same command does."""
_ECHO = 2.0  # seconds in which the same Ctrl-C may come again, passed on by whatever started this process


class Stopped(Exception):
    """The work was put down on request; it can go on."""


def _requests() -> list[signal.Signals]:
    """The signals that ask for a stop: not a hang-up that ``nohup`` has this process ignore."""
    hang_up = [signal.SIGHUP] if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    return [signal.SIGTERM, signal.SIGINT, *hang_up]


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside the block the first request to stop interrupts, as Ctrl-C does: for work that may end at any place.

    What comes after it is not heard, neither in the block nor, while the process ends, after it.
    """
    requests, asked_at = _requests(), -_ECHO

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal asked_at
        before, asked_at = asked_at, time.monotonic()
        if asked_at - before > _ECHO:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in requests}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if asked_at < 0 else signal.SIG_IGN)


def seconds_since_request() -> float:
    """How long a request to stop has been waiting for its answer; 0 where there is none."""
    request = StopRequest.current
    return time.monotonic() - request._asked_at if request is not None and request.asked else 0.0


class StopRequest:
    """Inside its block a request to stop sets ``asked`` and calls ``on_ask`` once; a second Ctrl-C interrupts."""

    current: "StopRequest | None" = None

    def __init__(self, on_ask: Callable[[], None] = lambda: None):
        self.asked = False
        self._on_ask = on_ask
        self._asked_at = 0.0

    def __enter__(self) -> "StopRequest":
        StopRequest.current = self
        self._before = {number: signal.signal(number, self._hear) for number in _requests()}
        return self

    def __exit__(self, *_: object) -> None:
        StopRequest.current = None
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()
            self._on_ask()
        elif number == signal.SIGINT and time.monotonic() - self._asked_at > _ECHO:
            raise KeyboardInterrupt
