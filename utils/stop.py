"""A request to stop, by SIGTERM or Ctrl-C: heard at once, answered where the work can be put down."""

import signal
import time
from collections.abc import Callable
from types import FrameType

_ECHO = 2.0  # seconds in which the same Ctrl-C may come again, passed on by whatever started this process


class Stopped(Exception):
    """The work was put down on request; it can go on."""


class StopRequest:
    """Inside its block SIGTERM and Ctrl-C set ``asked`` and call ``on_ask`` once; a second Ctrl-C interrupts."""

    def __init__(self, on_ask: Callable[[], None] = lambda: None):
        self.asked = False
        self._on_ask = on_ask
        self._asked_at = 0.0

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()
            self._on_ask()
        elif number == signal.SIGINT and time.monotonic() - self._asked_at > _ECHO:
            raise KeyboardInterrupt
