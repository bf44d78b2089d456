"""The notebook of the documentation runs whole, from its first cell to its last."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

NOTEBOOK = Path(__file__).parent.parent / "docs" / "quickstart.ipynb"


def test_notebook_is_stored_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert (cell.get("outputs", []), cell.get("execution_count")) == ([], None)


def test_every_cell_runs_and_the_model_predicts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(NOTEBOOK.parent)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    workplace = Path.cwd()
    assert workplace.parent == tmp_path
    assert (workplace / "saved/mine/model.pth").is_file()
    assert names["classes"].shape == (64, 64)
    target = names["scene"](40)[1]
    assert np.mean(names["classes"] == target) > 0.5
    printed = capsys.readouterr().out
    assert "recommended: " in printed
    assert "IoU in %" in printed
