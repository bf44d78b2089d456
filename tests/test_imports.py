"""Which way imports go, those inside functions included: main → trainer → models, dataloaders → utils; in the trainer,
stages → rooms → methods."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "main": {"trainer", "models", "dataloaders", "utils"},
    "trainer": {"trainer", "models", "dataloaders", "utils"},
    "models": {"models", "utils"},
    "dataloaders": {"dataloaders", "utils"},
    "utils": {"utils"},
}
ROOMS = {path.name for path in (ROOT / "trainer").iterdir() if (path / "__init__.py").is_file()}
LEAVES = {"methods", "balanced_kmeans"}


def imports(path: Path) -> set[str]:
    """Dotted names of the project's modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in MAY_IMPORT}


def files_of(place: str) -> list[Path]:
    return sorted((ROOT / place).rglob("*.py")) if (ROOT / place).is_dir() else [ROOT / f"{place}.py"]


def rooms_imported_by(place: str) -> set[str]:
    """The trainer's files and rooms that a room, or a file beside them, imports."""
    names = {name.split(".")[1] for path in files_of(f"trainer/{place}") for name in imports(path)
             if name.startswith("trainer.")}  # fmt: skip
    return names - {place}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package):
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of(package)
        for name in imports(path)
        if name.split(".")[0] not in MAY_IMPORT[package]
    }
    assert not wrong


def test_methods_and_balanced_kmeans_import_no_other_room():
    assert {room: rooms_imported_by(room) for room in LEAVES} == {room: set() for room in LEAVES}


def test_rooms_import_rooms_in_one_direction_and_none_the_stages():
    files = {path.stem for path in (ROOT / "trainer").glob("*.py")} - {"__init__"}
    graph = {place: rooms_imported_by(place) for place in ROOMS | files}
    assert set(TopologicalSorter(graph).static_order()) == ROOMS | files  # a circle raises CycleError
    assert not [room for room in ROOMS if "stages" in graph[room]]


def test_what_checks_and_prepares_data_does_without_pytorch():
    """Each of its processes, one per core, would take seconds to start."""
    modules = "dataloaders.check, dataloaders.own.make, dataloaders.prepare.__main__"
    found = subprocess.run([sys.executable, "-c", f"import {modules}, sys; sys.exit('torch' in sys.modules)"], cwd=ROOT)
    assert found.returncode == 0


def test_no_file_is_longer_than_300_lines():
    files = [path for place in (*MAY_IMPORT, "tests", "benchmarks") for path in files_of(place)]
    assert {str(path): lines for path in files if (lines := len(path.read_text().splitlines())) > 300} == {}
