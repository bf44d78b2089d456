from pathlib import Path

import pytest


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty working folder: what is written goes there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unplanned(monkeypatch):
    """Without timed iterations and the plan at the end, which take seconds; the schedule stays as proposed."""
    as_it_is = {"factor": 1.0, "validations": 20, "config": {}}
    monkeypatch.setattr("trainer.planning.init_data.fit_to_minutes", lambda *_: (as_it_is, {}))
    monkeypatch.setattr("trainer.planning.init_data.plan_run", lambda *_, **__: None)
