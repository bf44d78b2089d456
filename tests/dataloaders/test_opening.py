"""Pictures are opened in one way: with a list of formats and a limit of pixels."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPENERS = {
    "dataloaders/opening.py",
    "dataloaders/images.py",
    "dataloaders/mask_file.py",
    "dataloaders/prepare/pictures.py",
}
CALLS = {"imread", "imreadmulti", "imdecode", "imdecodemulti"}
FILES = [
    path
    for folder in ("dataloaders", "models", "trainer", "utils")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.relative_to(ROOT).as_posix() not in OPENERS
] + [ROOT / "main.py"]


def decoders_in(source: str) -> list[str]:
    """What opens a picture in a program: ``Image.open``, also under another name, and OpenCV's and others' readers."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            is_pillow = node.attr == "open" and "Image" in ast.unparse(node.value)
            if is_pillow or node.attr in CALLS:
                found.append(ast.unparse(node))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("PIL", "cv2", "imageio"):
            found += [f"{node.module}.{name.name}" for name in node.names if name.name in CALLS | {"open"}]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_other_code_opens_pictures(path):
    assert decoders_in(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    ["Image.open(p)", "PIL.Image.open(p)", "cv2.imread(p)", "from PIL.Image import open", "cv2.imdecode(b, 1)"],
)
def test_every_way_to_open_one_is_found(source):
    assert decoders_in(source)
