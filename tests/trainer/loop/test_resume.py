"""Runs that are killed, whose files are damaged or do not fit on the disk, and runs of another configuration."""

import json
import random
import shutil
import subprocess
import zipfile

import pytest
import torch

from dataloaders import open_data
from tests.conftest import write_tiny_configs
from tests.trainer.runs import history, prepare_subclasses, train_apart, weights
from trainer.loop.resume import checkpoint_to_go_on_from, training_inputs
from utils.config_file import load_config
from utils.errors import UsageError

ITERATIONS = 8  # four epochs of two
SETTINGS = (
    "trainer.log_per_iter=3", "train_supervised.num_workers=1", "train_unsupervised.num_workers=1",
    "trainer.pseudo_label_quality=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(demo_set, tmp_path_factory):
    """The configuration of a tiny USRN whose subclasses are there, and an unbroken run of it with 1 and 2 processes."""
    folder = tmp_path_factory.mktemp("runs")
    baseline, usrn = write_tiny_configs(demo_set, folder, num_workers=0)
    prepare_subclasses(baseline)
    for processes in (1, 2):
        assert train_apart(usrn, *SETTINGS, f"experim_name=whole{processes}_usrn", *maps(folder),
                           processes=processes) == []  # fmt: skip
    return folder, usrn


def origin_of(config, resume, force):
    return checkpoint_to_go_on_from(config, training_inputs(config, open_data(config)), resume, force)


def maps(folder):
    return (f"label_subcls={folder}/saved/tiny_baseline/label_subcls_balanced_kmeans",)


def flip_a_bit_of_the_weights(path):
    with zipfile.ZipFile(path) as archive:
        largest = archive.read(max(archive.infolist(), key=lambda record: record.file_size))
    contents = bytearray(path.read_bytes())
    contents[contents.index(largest) + len(largest) // 2] ^= 1
    path.write_bytes(contents)


def assert_same_run(left, right):
    for name in ("best_model.pth", "checkpoint.pth"):
        expected, found = weights(left / name), weights(right / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert history(left) == history(right)


@pytest.mark.parametrize(
    ("processes", "save_minutes"), [(1, "0"), (1, "null"), (2, "0")], ids=["every iteration", "by epochs", "two"]
)
def test_run_killed_again_and_again_ends_as_one_that_never_was(runs, processes, save_minutes):
    folder, usrn = runs
    name = f"killed{processes}{save_minutes}_usrn"
    options = (*SETTINGS, f"experim_name={name}", f"trainer.save_minutes={save_minutes}", *maps(folder))
    rng = random.Random(processes)
    for kill_at in sorted(rng.sample(range(ITERATIONS), 3)):
        rank = rng.randrange(processes)
        train_apart(usrn, *options, processes=processes, kill_at=kill_at, killed_rank=rank)
    assert train_apart(usrn, *options, processes=processes) == []
    assert_same_run(folder / "saved" / f"whole{processes}_usrn", folder / "saved" / name)


def test_two_processes_judge_the_pseudo_labels_of_the_same_pixels_as_one(runs):
    pixels = [
        [entry["pseudo_label_quality"]["pixels"] for entry in history(runs[0] / "saved" / f"whole{processes}_usrn")
         if "pseudo_label_quality" in entry]
        for processes in (1, 2)
    ]  # fmt: skip
    assert pixels[0] == pixels[1]
    assert len(pixels[0]) == 4


def test_damaged_checkpoint_is_noticed_and_the_one_before_it_used(runs):
    folder, usrn = runs
    options = (*SETTINGS, "experim_name=damaged_usrn", "trainer.save_minutes=0", *maps(folder))
    train_apart(usrn, *options, kill_at=5)
    run_dir = folder / "saved" / "damaged_usrn"
    newest = run_dir / "checkpoint.pth"
    flip_a_bit_of_the_weights(newest)
    assert train_apart(usrn, *options) == []
    assert "is damaged). Looking for the one before it." in (run_dir / "log.txt").read_text()
    assert_same_run(folder / "saved" / "whole1_usrn", run_dir)


def test_nothing_starts_over_where_every_checkpoint_is_damaged(runs):
    folder, usrn = runs
    options = (*SETTINGS, "experim_name=ruined_usrn", "trainer.save_minutes=0", *maps(folder))
    train_apart(usrn, *options, kill_at=3)
    for name in ("checkpoint.pth", "checkpoint_previous.pth"):
        path = folder / "saved" / "ruined_usrn" / name
        path.write_bytes(path.read_bytes()[:-100])
    (error,) = train_apart(usrn, *options)
    assert "checkpoint_previous.pth: is no checkpoint that can be read" in error
    assert "--force" in error


def test_full_disk_ends_the_run_with_one_message_and_harms_nothing(runs):
    folder, usrn = runs
    options = (*SETTINGS, "experim_name=full_usrn", "trainer.save_minutes=0", *maps(folder))
    train_apart(usrn, *options, kill_at=3)
    run_dir = folder / "saved" / "full_usrn"
    before = weights(run_dir / "checkpoint.pth")
    size = (run_dir / "checkpoint.pth").stat().st_size
    (error,) = train_apart(usrn, *options, largest_file=size // 2)
    assert "checkpoint.pth: cannot be written" in error or "best_model.pth: cannot be written" in error
    after = weights(run_dir / "checkpoint.pth")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not list(run_dir.glob(".*"))
    assert train_apart(usrn, *options) == []
    assert_same_run(folder / "saved" / "whole1_usrn", run_dir)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system that has room for two small checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a file system needs root; the test above does the same with files of limited size")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_that_is_really_full_ends_the_run_with_the_last_checkpoint_whole(tiny_configs, tiny_disk, tmp_path):
    options = ("trainer.save_minutes=0", f"trainer.save_dir={tiny_disk}", f"trainer.log_dir={tmp_path}")
    (error,) = train_apart(tiny_configs[0], *options)
    assert "cannot be written (No space left on device)" in error
    assert origin_of(load_config(tiny_configs[0], options), "auto", False) is not None
    assert not list(tiny_disk.rglob(".*"))


@pytest.fixture
def unfinished(runs):
    """A run that was killed, and its configuration with other settings."""
    folder, usrn = runs
    run_dir = folder / "saved" / "unfinished_usrn"
    options = ["experim_name=unfinished_usrn", *maps(folder)]
    if not run_dir.exists():
        train_apart(usrn, *SETTINGS, *options, kill_at=5)
    return run_dir / "checkpoint.pth", lambda *more: load_config(usrn, [*SETTINGS, *options, *more])


def test_run_of_another_configuration_is_refused_by_the_keys_that_matter(unfinished):
    path, config = unfinished
    assert origin_of(config("trainer.log_per_iter=1"), "auto", False).path == path
    for resume in ("auto", str(path)):
        with pytest.raises(UsageError, match=r"differs in optimizer\.args\.lr: 0\.01 → 0\.5") as error:
            origin_of(config("optimizer.args.lr=0.5"), resume, False)
        assert "--force" in str(error.value)


def test_force_goes_on_from_a_file_that_is_named_and_starts_over_otherwise(unfinished):
    path, config = unfinished
    other = config("optimizer.args.lr=0.5")
    assert origin_of(other, str(path), True).path == path
    assert origin_of(other, "auto", True) is None
    assert origin_of(other, None, True) is None


def test_unfinished_run_is_not_written_over_unasked(unfinished):
    _, config = unfinished
    with pytest.raises(UsageError, match="--resume auto, or start it over with --force"):
        origin_of(config(), None, False)


def test_run_that_torchrun_started_again_goes_on_whatever_was_said(unfinished, monkeypatch):
    path, config = unfinished
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    for resume, force in ((None, False), (None, True), ("auto", True)):
        assert origin_of(config(), resume, force).path == path


@pytest.fixture
def other_maps(unfinished, tmp_path):
    """A copy of the folder of subclass maps, to change."""
    _, config = unfinished
    shutil.copytree(config().subclass_dir, tmp_path / "maps")
    return tmp_path / "maps"


def test_run_on_identical_subclass_maps_made_again_goes_on(unfinished, other_maps):
    path, config = unfinished
    table = json.loads((other_maps / "subclasses.json").read_text())
    (other_maps / "subclasses.json").write_text(json.dumps(table | {"seconds": 77.0, "checkpoint": "another"}))
    assert origin_of(config(f"label_subcls={other_maps}"), "auto", False).path == path


def test_run_on_other_subclass_maps_is_refused_unless_forced(unfinished, other_maps):
    path, config = unfinished
    table = json.loads((other_maps / "subclasses.json").read_text())
    (other_maps / "subclasses.json").write_text(json.dumps(table | {"maps": ""}))
    one, other, *_ = (file for file in sorted(other_maps.glob("*.png")) if file.name != "subclasses.png")
    shutil.copy(one, other)
    changed = config(f"label_subcls={other_maps}")
    for resume in ("auto", str(path), None):
        with pytest.raises(UsageError, match="differs in the subclass maps"):
            origin_of(changed, resume, False)
    assert origin_of(changed, str(path), True).path == path
    assert origin_of(changed, "auto", True) is None


def test_run_on_other_data_is_refused_by_what_changed_and_goes_on_over_a_copy(unfinished, demo_set, tmp_path):
    path, config = unfinished
    shutil.copytree(demo_set, tmp_path / "copy")  # with other times
    copied = config(f"data_dir={tmp_path / 'copy'}")
    assert origin_of(copied, "auto", False).path == path
    masks = tmp_path / "copy" / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    shutil.copy(masks / "val_0001.png", masks / "val_0000.png")
    with pytest.raises(
        UsageError, match="differs in the validation images or masks. Give this run another experim_name"
    ):
        origin_of(copied, "auto", False)
    with pytest.raises(UsageError, match="differs in the validation images or masks. Go on all the same with --force"):
        origin_of(copied, str(path), False)
