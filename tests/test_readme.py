"""What README.md and the other documents name is there: the map of the house, files, links, sections, flags."""

import re
import shlex
from pathlib import Path

import pytest

import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAP = re.search(r"\nmain\.py  .*?\n```", README, re.DOTALL)[0]

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
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
    named = {name for path in DOCUMENTS for name in re.findall(r"`(?:[\w/]+/)?(test_\w+\.py)`", path.read_text())}
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a Markdown text."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files_and_sections(document):
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", document.read_text()):
        name, _, section = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not section or section in anchors(target.read_text()), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_flags_of_main_in_the_documents_exist(document, capsys):
    with pytest.raises(SystemExit):
        main.parse(["--help"])
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    text = document.read_text().replace("\\\n", " ")
    commands = re.findall(r"main\.(?:py|sh)\b[^`\n|#]*", text)
    assert {flag for command in commands for flag in re.findall(r"(?<!\S)--\w+", command)} - known == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_main_in_the_documents_are_taken(document):
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text().replace("\\\n", " "), re.DOTALL)
    for command in re.findall(r"^python3? main\.py (.*)$", "\n".join(blocks), re.MULTILINE):
        main.parse(shlex.split(command.partition(" && ")[0], comments=True))
