"""Processes that are forked from a server, which has imported once what takes each of them seconds otherwise."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkstemp

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preload"])


class ForkedCommand:
    """In the place of ``Popen``: a function from arguments to an exit code, in a process group of its own.

    Stdout and stderr go to files in ``folder``.
    """

    def __init__(self, function: Callable[[list[str]], int | None], folder: Path, *arguments, **environment: str):
        self._outputs = [Path(mkstemp(dir=folder, prefix=name)[1]) for name in ("out", "err")]
        self._process = FORKS.Process(
            target=_run, args=(function, [str(argument) for argument in arguments], environment, self._outputs)
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float) -> tuple[str, str]:
        self._process.join(timeout)
        assert self.returncode is not None, "it hangs"
        out, err = (path.read_text() for path in self._outputs)
        return out, err


def _run(function: Callable, arguments: list[str], environment: dict[str, str], outputs: list[Path]) -> None:
    os.setsid()
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # for data loading, as in a process that was started by hand
    sys.exit(function(arguments))


def torchrun(arguments: list[str]) -> None:
    """torchrun in this process, with ``main.py`` in forks of it."""
    import torch.distributed.run
    from torch.distributed.launcher.api import elastic_launch

    def launch_forks(config, entrypoint):
        return elastic_launch(config, _main_py)

    torch.distributed.run.elastic_launch = launch_forks
    torch.distributed.run.main(["--start_method", "fork", *arguments])


def _main_py(unbuffered: str, script: str, *arguments: str) -> None:
    import main

    if code := main.main(list(arguments)):
        sys.exit(code)
