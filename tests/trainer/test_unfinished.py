"""A stage done again and killed on the way: what it has replaced and what it has not is never taken for one thing."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import main as command_line
from tests.conftest import write_tiny_configs
from tests.forks import FORKS
from tests.kills import keep_states
from trainer.loop.resume import Origin, remove_earlier_run
from trainer.record import Record
from trainer.trained import best_model, last_model
from utils.config_file import load_config
from utils.errors import UsageError
from utils.fingerprint import sha256

FEW = ("--set", "trainer.epochs=1", "--set", "trainer.tensorboardX=false")
BEGUN_AGAIN = ("optimizer.args.lr=0.02", "trainer.epochs=2", "trainer.save_period=2", "trainer.tensorboardX=false")


@pytest.fixture(scope="module")
def folder(finished_runs, demo_set, tmp_path_factory) -> Path:
    """A finished and evaluated baseline and USRN."""
    folder = tmp_path_factory.mktemp("unfinished")
    shutil.copytree(finished_runs / "saved", folder / "saved")
    for config in write_tiny_configs(demo_set, folder, num_workers=0):
        assert command_line.main(["-c", str(config), "--test", *FEW]) == 0
    return folder


@pytest.fixture
def kill_everywhere(folder, tmp_path):
    """What gives a command and yields, one after the other in the folder of the runs, all states that kills leave."""

    def yield_states(*arguments: str):
        saved, states, before = folder / "saved", tmp_path / "states", tmp_path / "before"
        shutil.copytree(saved, before)
        process = FORKS.Process(target=_run_watched, args=(list(arguments), saved, states))
        process.start()
        process.join()
        assert process.exitcode == 0
        for state in [*sorted(states.iterdir()), before]:
            shutil.rmtree(saved)
            shutil.copytree(state, saved)
            yield state.name

    return yield_states


def _run_watched(arguments: list[str], watched: Path, states: Path) -> None:
    keep_states(watched, states)
    sys.exit(command_line.main(arguments))


def test_model_is_of_a_training_that_is_done_or_refused(folder, kill_everywhere):
    path = folder / "tiny_baseline.json"
    overrides = [part for setting in BEGUN_AGAIN for part in ("--set", setting)]
    config, wrong, refused = load_config(path, list(BEGUN_AGAIN)), [], []
    best, newest = config.run_dir / "best_model.pth", config.run_dir / "checkpoint.pth"
    earlier = sha256(best)
    for state in kill_everywhere("-c", str(path), "--force", *overrides):
        record = Record(config.run_dir, "train")
        for choose in (lambda: best_model(config, None), lambda: last_model(config)):
            try:
                choose()
            except UsageError as error:
                refused.append(str(error))
            else:
                record.refuse_other_outputs()
                if record.entry is None or record.entry["config"] != json.loads(Origin.read(newest).state["config"]):
                    wrong.append(state)
        if best.exists() and not newest.exists():  # it may be named with --resume
            assert sha256(best) != earlier, state
    assert wrong == []
    assert len(refused) > 20
    assert all("is not finished. Go on with it" in message for message in refused)


@pytest.mark.parametrize(
    ("kind", "again", "reader"), [("baseline", "--save_feature", "--clustering"), ("usrn", "--test", "--summary")]
)
def test_stage_that_reads_what_another_wrote_refuses_it_until_that_is_done(
    folder, kill_everywhere, capsys, kind, again, reader
):
    config = str(folder / f"tiny_{kind}.json")
    run_dir, codes = folder / "saved" / f"tiny_{kind}", []
    for state in kill_everywhere("-c", config, again, "--force", *FEW):
        capsys.readouterr()
        codes.append(command_line.main(["-c", config, reader, *FEW]))
        if Record(run_dir, again.strip("-")).entry is not None:
            assert codes[-1] == 0, state
        else:
            assert codes[-1] == 2, state
            assert "was begun and not finished" in capsys.readouterr().err
    assert codes.count(2) > 5


def test_checkpoint_that_a_new_training_starts_from_stays_until_it_is_replaced(tmp_path):
    for name in ("best_model.pth", "checkpoint.pth", "checkpoint_previous.pth"):
        (tmp_path / name).touch()
    remove_earlier_run(tmp_path, but=f"{tmp_path}/../{tmp_path.name}/best_model.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["best_model.pth"]
    remove_earlier_run(tmp_path, but="auto")
    assert list(tmp_path.iterdir()) == []
