"""The commands that messages advise: with the configuration that a run was really made with."""

import json
import shlex
from pathlib import Path

from utils.config import BASELINE, USRN, Config


def command(flags: str, run_dir: Path, config: Config | None = None) -> str:
    """``python3 main.py`` with these flags, for the run in ``run_dir``.

    Its configuration is ``config`` where that is this run's own, else the one with which the run's last stage was
    done. Where none is known it is the file named after the run, beside that of ``config``.
    """
    if config is not None and config.run_dir == run_dir:
        arguments = config.arguments
    else:
        folder = Path("configs") if config is None or config.file is None else config.file.parent
        named_after_it = shlex.quote(str(folder / f"{run_dir.name}.json"))
        arguments = _recorded(run_dir / "stages.json") or f"--config {named_after_it}"
    return f"python3 main.py {flags} {arguments}"


def command_of_all_stages(config: Config) -> str:
    """``sh main.sh`` for a run's four stages; "" where its configurations are not where that looks for them."""
    files = [Path("configs") / f"{config.own_name}_{kind}.json" for kind in (BASELINE.lower(), USRN.lower())]
    return f"sh main.sh {config.own_name}" if all(path.is_file() for path in files) else ""


def _recorded(path: Path) -> str | None:
    """The command line's arguments in a run's record; None where it has none. Whether it is sound is not asked here."""
    try:
        *_, last = filter(None, json.loads(path.read_text()).values())
        return str(last["made"]["arguments"])
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return None
