import io
import os
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


def test_console_shows_what_its_encoding_lacks_in_another_way(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    start_log(None)
    log.info("Bäume 木")
    assert shown.getvalue() == b"B\\xe4ume \\u6728\n"


def test_work_goes_on_where_the_console_is_gone(monkeypatch, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        start_log(tmp_path / "log.txt")
        for number in range(3):
            log.info(f"line {number}")
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 3


def test_log_file_that_cannot_be_written_is_named_once(monkeypatch, tmp_path, capsys):
    start_log(tmp_path / "log.txt")
    monkeypatch.setattr(log.handlers[1], "stream", io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True))
    for number in range(3):
        log.info(f"line {number}")
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["line 0", "line 1", "line 2"]
    assert printed.err.count("\n") == 1
    assert "log.txt: cannot be written ([Errno 28] No space left on device)" in printed.err
