"""Options of ``main.py`` that are given in vain, too much or by mistake."""

import errno
import os
import tempfile

import pytest
import torch

import main as command_line
from dataloaders.loaders import DrawSampler
from dataloaders.streams import LABELLED, UNLABELLED
from utils import distributed
from utils.errors import UsageError, system_errors


def refused_at_the_door(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        command_line.main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--predict", "--resume", "--output", "--config", "--masks", "--name", "--classes"])
def test_option_that_is_empty_is_refused(tiny_configs, capsys, flag):
    arguments = ["--init_data", "x"] if flag in ("--masks", "--name", "--classes") else ["-c", tiny_configs[0]]
    for empty in ("", " "):
        assert f"{flag} is empty" in refused_at_the_door(capsys, *arguments, "--test", flag, empty)


@pytest.mark.parametrize("value", ["²", "-1", "1.5", "x", "9" * 5000])
def test_mask_value_that_is_no_number_is_refused(capsys, value):
    arguments = ["--init_data", "x", "--masks", "y", "--name", "z"]
    assert "--ignore takes mask values" in refused_at_the_door(capsys, *arguments, f"--ignore={value}")


@pytest.mark.parametrize("stage", ["--test", "--save_feature", "--clustering", "--summary", "--plan", "--force"])
def test_checkpoint_that_is_not_there_is_refused_by_every_stage_also_where_it_is_done(tiny_configs, capsys, stage):
    code = command_line.main(["-c", str(tiny_configs[0]), stage, "--resume", "gone.pth"])
    assert code == 2
    assert "error: --resume gone.pth: there is no such checkpoint" in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="3 processes on this machine .* but 2 GPUs"):
        distributed.launch(print, (), 3, "cuda")


def test_what_takes_one_process_runs_in_the_first_that_torchrun_started(tiny_configs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for rank, expected in (("1", ""), ("0", "wrong: 0")):
        monkeypatch.setenv("RANK", rank)
        assert command_line.main(["-c", str(tiny_configs[0]), "--check_data"]) == 0
        assert expected in (out := capsys.readouterr().out)
        assert bool(out) is bool(expected)


@pytest.mark.parametrize(("stream", "name"), [(LABELLED, "no labelled"), (UNLABELLED, "no unlabelled")])
def test_stream_without_an_image_is_called_by_its_name(stream, name):
    with pytest.raises(UsageError, match=f"^{name} image"):
        DrawSampler(0, 4, 10, seed=1, stream=stream)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device. Make room"),
        (OSError(errno.EMFILE, "x", "a.png"), "a.png: Too many open files. Raise the limit"),
        (OSError(errno.EACCES, "x", "a.png"), "a.png: Permission denied"),
        (OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 24] Too many"), "Raise the limit"),
        (UnicodeEncodeError("ascii", "ä.png", 0, 1, "x"), "'ä.png': cannot be written in the ascii"),
    ],
)
def test_what_the_system_refuses_is_one_message(error, message):
    with pytest.raises(UsageError) as raised, system_errors():
        raise error
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_error_that_is_not_the_systems_stays_what_it_is():
    with pytest.raises(OSError, match="mine"), system_errors():
        raise OSError("mine")


def test_machine_without_a_folder_for_temporary_files_is_one_message(tiny_configs, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [os.devnull])
    assert command_line.main(["-c", str(tiny_configs[0])]) == 2
    message = capsys.readouterr().err
    assert "No usable temporary directory" in message
    assert "Set TMPDIR" in message
    assert message.count("\n") == 1


def test_flags_take_true_false_and_nothing():
    for text, expected in (([], True), (["True"], True), (["False"], False)):
        assert command_line.parse(["-c", "x", "--test", *text]).test is expected
    with pytest.raises(SystemExit):
        command_line.parse(["-c", "x", "--test", "--clustering"])


def test_short_flags_of_the_original_are_those_of_their_long_forms():
    options = command_line.parse(["-c", "x.json", "-r", "y.pth", "-t", "True", "-sf", "False", "-ca", "normal_kmeans"])
    assert (options.config, options.resume, options.test, options.save_feature) == ("x.json", "y.pth", True, False)
    assert options.clustering_algorithm == "normal_kmeans"
    assert command_line.parse(["-c", "x.json", "-sf"]).save_feature is True


def test_without_config_the_originals_default_is_taken_where_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        command_line.parse([])
    assert "--config names the run's configuration" in capsys.readouterr().err
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.json").touch()
    assert command_line.parse([]).config == "configs/config.json"


def test_every_stage_of_the_table_has_its_function_and_its_flag():
    from trainer import stages
    from trainer.stage_table import STAGES

    assert all(callable(getattr(stages, name)) for name in STAGES)
    for name in STAGES.keys() - {"train"}:
        value = STAGES[name].value.get("choices", ["True"])[0]
        assert getattr(command_line.parse(["-c", "run.json", f"--{name}", value]), name) in (True, value)
