"""The README's map of the house is true."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAP = re.search(r"\nmain\.py  .*?\n```", README, re.DOTALL)[0]


ROOMS = ("loop", "evaluation", "subclasses", "prediction")


@pytest.mark.parametrize(
    "folder", ["models", "dataloaders", "dataloaders/sets", "trainer", *(f"trainer/{room}" for room in ROOMS), "utils"]
)
def test_map_names_every_file_and_folder(folder):
    there = {
        path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert there - {"__init__"} - set(re.findall(r"\w+", MAP)) == set()


def test_files_that_the_documents_name_beside_a_claim_are_there():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    named = {name for path in documents for name in re.findall(r"`(?:[\w/]+/)?(test_\w+\.py)`", path.read_text())}
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}
