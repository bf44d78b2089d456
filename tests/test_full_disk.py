"""Files that cannot grow, as on a full disk: one message that names the file, and the command goes on later."""

import resource
import signal

import pytest

from tests.trainer.runs import run_apart
from trainer import stages
from utils.config_file import load_config


def run(stage, config_file, overrides, options, largest_file, device) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    stages.run_stage(stage, load_config(config_file, list(overrides)), options, device)


@pytest.fixture(scope="module")
def trained(demo_set, tmp_path_factory):
    from tests.conftest import write_tiny_configs

    folder = tmp_path_factory.mktemp("full")
    baseline, _ = write_tiny_configs(demo_set, folder, num_workers=0)
    assert run_apart(run, "train", baseline, (), stages.Options(), None) == []
    return folder, baseline


@pytest.mark.parametrize(
    ("stage", "overrides", "largest_file", "file"),
    [
        ("train", ("trainer.log_per_iter=1", "trainer.tensorboardX=false"), 150, "history.jsonl"),
        ("train", ("trainer.log_per_iter=1", "trainer.save_minutes=0"), 250, "tensorboard"),
        ("test", (), 800, ".png"),
        ("test", (), 20_000, "report.html"),
        ("predict", (), 1000, ".png"),
    ],
    ids=["history", "TensorBoard", "predictions of --test", "report", "--predict"],
)
def test_full_disk_is_one_message_and_the_same_command_goes_on_later(
    trained, demo_set, tmp_path, stage, overrides, largest_file, file
):
    folder, baseline = trained
    overrides = (*overrides, "experim_name=another", f"trainer.save_dir={tmp_path}", f"trainer.log_dir={tmp_path}")
    images = demo_set / "VOCdevkit" / "VOC2012" / "JPEGImages"
    options = stages.Options(
        resume="auto" if stage == "train" else f"{folder}/saved/tiny_baseline/best_model.pth",
        predict=str(images), output=str(tmp_path / "predictions"),
    )  # fmt: skip
    (error,) = run_apart(run, stage, baseline, overrides, options, largest_file)
    assert error.startswith(("UsageError: ", "NotWrittenError: "))
    assert file in error
    assert "File too large" in error
    assert "\n" not in error
    assert not list(tmp_path.rglob(".*"))
    assert run_apart(run, stage, baseline, overrides, options, None) == []
