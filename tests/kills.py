"""How a folder would look if the command that is at work in it were killed, for every moment at which that matters."""

import os
import shutil
import sys
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def keep_states(watched: Path, states: Path) -> None:
    """From here on copy ``watched`` to ``states`` before this process changes a file in it.

    SIGKILL at that moment would leave just this: what a process has not handed to the system is in no file. Copies are
    named by their number and the change that followed. It cannot be undone: for a process of its own.
    """
    copying = False

    def see(event: str, arguments: tuple) -> None:
        nonlocal copying
        if copying or not _is_change_below(watched, event, arguments):
            return
        copying = True
        number = len(list(states.iterdir())) if states.exists() else 0
        path = arguments[1 if event in ("os.rename", "os.link") else 0]
        name = Path(os.fsdecode(path)).name if isinstance(path, str | bytes | os.PathLike) else ""
        change = f"{event.removeprefix('os.')} {name}".strip()
        shutil.copytree(watched, states / f"{number:04} {change}", symlinks=True)
        copying = False

    sys.addaudithook(see)


def _is_change_below(watched: Path, event: str, arguments: tuple) -> bool:
    if event == "open":
        path, flags = arguments[0], arguments[2]
        if not isinstance(path, str | bytes) or not isinstance(flags, int) or not flags & WRITING:
            return False
    elif event in CHANGES:
        path = arguments[0]
    else:
        return False
    name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "?"
    # Names relative to an open folder come from rmtree alone, whose folders are all watched.
    return os.path.abspath(name).startswith(f"{watched}/") or (event != "open" and not os.path.isabs(name))
