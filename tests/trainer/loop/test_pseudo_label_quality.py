"""``trainer.pseudo_label_quality``: what it writes, and that training does not see the masks."""

import shutil

import pytest
import torch

from tests.trainer.loop.test_trainer import history, train
from trainer.evaluation.label_quality import COUNTED_PIXELS

ON = "trainer.pseudo_label_quality=true"
# Every label is above the threshold, so that all of them are counted.
SURE = ("model.pos_thresh_value=0", "trainer.save_minutes=0")


@pytest.fixture
def usrn(finished_runs, tmp_path):
    shutil.copytree(finished_runs, tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny_usrn.json", f"trainer.save_dir={tmp_path}/saved", f"trainer.log_dir={tmp_path}/saved"


def qualities(run_dir):
    return [entry for entry in history(run_dir) if "pseudo_label_quality" in entry]


def test_training_is_bit_identical_with_and_without_and_each_round_is_written(usrn):
    without, folder_without = train(*usrn, *SURE, "experim_name=a_usrn", f"label_subcls={subclasses(usrn)}")
    with_it, folder = train(*usrn, *SURE, "experim_name=b_usrn", f"label_subcls={subclasses(usrn)}", ON)
    assert all(torch.equal(without[name], with_it[name]) for name in without)
    others = [entry for entry in history(folder) if "pseudo_label_quality" not in entry]
    assert others == history(folder_without)
    found = qualities(folder)
    assert [(entry["iteration"], entry["epoch"]) for entry in found] == [(2, 1), (4, 2), (6, 3), (8, 4)]
    for entry in found:
        counts = entry["pseudo_label_quality"]
        assert tuple(counts) == COUNTED_PIXELS
        assert 0 < sum(counts["pixels"]) <= 2 * 4 * 4 * 4  # two batches of 4 crops of 32 pixels at a stride of 8
        assert sum(counts["pixels"]) == sum(counts["confident"]) == sum(counts["used"])


def subclasses(usrn):
    return usrn[0].parent / "saved" / "tiny_baseline" / "label_subcls_balanced_kmeans"


@pytest.mark.parametrize("stop_after", [3, 4])
def test_a_run_that_goes_on_has_counted_what_an_unbroken_one_has(usrn, stop_after):
    more = (*SURE, ON, f"label_subcls={subclasses(usrn)}")
    _, whole = train(*usrn, *more, "experim_name=whole_usrn")
    _, broken = train(*usrn, *more, "experim_name=broken_usrn", stop_after=stop_after)
    train(*usrn, *more, "experim_name=broken_usrn", resume=broken / "checkpoint.pth")
    assert qualities(broken) == qualities(whole) != []


def test_a_baseline_has_no_pseudo_labels_to_judge(tiny_configs):
    _, folder = train(tiny_configs[0], ON)
    assert qualities(folder) == []
