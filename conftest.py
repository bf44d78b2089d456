"""Says what to install where a package of the tests is missing, before any test imports it."""

import gc
from importlib import metadata
from pathlib import Path

import pytest

FILES = ("requirements.txt", "requirements-dev.txt")


def _is_missing(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return True
    return False


_lines = [line for name in FILES for line in (Path(__file__).parent / name).read_text().splitlines()]
_missing = [line.split("==")[0] for line in _lines if "==" in line and _is_missing(line.split("==")[0])]
if _missing:
    pytest.exit(
        f"missing: {', '.join(_missing)}. `sh tests/run.sh` makes an environment that has all of it; into this one:\n"
        f"  python3 -m pip install -r {FILES[0]} -r {FILES[1]} -c requirements.lock",
        returncode=4,
    )

gc.disable()  # until everything is imported, of which nothing is garbage: looking for it takes a third of that time


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
