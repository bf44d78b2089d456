import io
import sys

import pytest

from utils.logger import log, start_log


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def no_handlers_after_a_test():
    yield
    log.handlers.clear()


def say(monkeypatch, path, stream):
    """What appears on a stream, as stdout and stderr, and in the log file."""
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    start_log(path)
    log.info("plain")
    log.info("better", extra={"good": True})
    log.warning("careful")
    return stream.getvalue(), path.read_text()


def test_a_terminal_gets_colours_and_the_log_file_does_not(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown, written = say(monkeypatch, tmp_path / "log.txt", Terminal())
    assert shown.splitlines() == ["plain", "\033[32mbetter\033[0m", "\033[33mcareful\033[0m"]
    assert "\033" not in written
    assert [line.split(" ", 2)[2] for line in written.splitlines()] == ["I plain", "I better", "W careful"]


def test_pipes_and_no_color_get_plain_lines(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert say(monkeypatch, tmp_path / "log.txt", io.StringIO())[0].splitlines() == ["plain", "better", "careful"]
    monkeypatch.setenv("NO_COLOR", "1")
    assert say(monkeypatch, tmp_path / "log.txt", Terminal())[0].splitlines() == ["plain", "better", "careful"]
