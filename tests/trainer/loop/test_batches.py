import shutil

import torch

from dataloaders import open_data
from dataloaders.photometry import MEAN, STD
from trainer.loop.batches import TrainingBatches
from trainer.subclasses.table import read_subclass_table
from utils.config_file import load_config

CPU = torch.device("cpu")


def usrn_batches(finished_runs, **more):
    usrn = load_config(finished_runs / "tiny_usrn.json", ["trainer.epochs=1"])
    data = open_data(usrn)
    n = read_subclass_table(usrn, data).n_subclasses
    return TrainingBatches(
        usrn, data, CPU, iterations=4, subclass_dir=usrn.subclass_dir, n_subclasses=n, **more
    ), read_subclass_table(usrn, data)


def test_usrn_gets_what_its_step_takes(finished_runs):
    batches, table = usrn_batches(finished_runs)
    seen = list(batches)
    assert len(seen) == 4
    for batch in seen:
        assert {name: tuple(values.shape) for name, values in batch.items()} == {
            "x": (4, 3, 32, 32), "y": (4, 32, 32), "s": (4, 32, 32),
            "u_weak": (4, 3, 32, 32), "u_strong": (4, 3, 32, 32),
        }  # fmt: skip
        labelled = (batch["y"] >= 0) & (batch["s"] >= 0)
        parents = table.class_of_subclass[batch["s"][labelled].long()]
        assert (parents == batch["y"][labelled]).float().mean() > 0.5  # maps come from an eighth of the size


def test_strong_view_is_the_weak_views_crop_in_other_colours(finished_runs):
    batches, _ = usrn_batches(finished_runs)
    batch = next(iter(batches))
    assert not torch.equal(batch["u_weak"], batch["u_strong"])
    weak, strong = (batch[name].mean(1).flatten(1) for name in ("u_weak", "u_strong"))
    for one, other in zip(weak, strong, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.7


def test_images_are_normalised(finished_runs):
    batches, _ = usrn_batches(finished_runs)
    weak = next(iter(batches))["u_weak"]
    back = weak * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
    assert back.min() >= -1e-6
    assert 0.5 < back.max() <= 1 + 1e-6


def test_batches_say_which_images_they_hold(finished_runs):
    batches, _ = usrn_batches(finished_runs, unsupervised_from=2)
    labelled, unlabelled = (drawn_ids(loader) for loader in (batches.labelled, batches.unlabelled))
    for iteration, _ in enumerate(batches):
        expected = {"labelled": labelled[iteration]}
        if iteration >= 2:
            expected["unlabelled"] = unlabelled[iteration - 2]
        assert batches.ids == expected


def drawn_ids(loader) -> list[list[str]]:
    return [[loader.dataset.samples[index].id for index, _ in batch] for batch in loader.batch_sampler]


def test_batches_from_an_iteration_on_are_those_of_the_whole_run(finished_runs):
    whole, _ = usrn_batches(finished_runs)
    tail, _ = usrn_batches(finished_runs, start=2)
    for expected, found in zip(list(whole)[2:], tail, strict=True):
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_bad_images_are_replaced_counted_and_listed_once(tiny_configs, demo_set, tmp_path, caplog, monkeypatch):
    shutil.copytree(demo_set, tmp_path / "data")
    config = load_config(tiny_configs[0], [f"data_dir={tmp_path / 'data'}", "data.on_bad_sample=skip"])
    data = open_data(config)
    bad = data.labelled[0].image
    bad.write_bytes(bad.read_bytes()[:500])
    batches = TrainingBatches(config, data, CPU, iterations=6)
    for _ in batches:
        assert data.labelled[0].id not in batches.ids["labelled"]
        batches.log_bad()
    batches.log_bad(at_end=True)
    lines = [record.getMessage() for record in caplog.records]
    assert [str(bad) in line for line in lines] == [True, False, False]
    assert lines[-1] == "bad samples so far: 1, drawn 3 times; others took their place"  # 24 draws of 8 images
