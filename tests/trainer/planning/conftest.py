from pathlib import Path

import pytest


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty working folder: what is written goes there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unplanned(monkeypatch):
    """Without the plan at the end, which takes a second."""
    monkeypatch.setattr("trainer.planning.init_data.plan_run", lambda *_, **__: None)
