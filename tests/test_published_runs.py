"""The published configurations through all four stages, on miniature trees of the real data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main as command_line
from dataloaders.prepare.__main__ import main as prepare
from tests.dataloaders.prepare.trees import cityscapes_tree, voc_tree

CONFIGS = Path(__file__).parent.parent / "configs"


def run_all_stages(run: str, data_dir: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """Both networks of a published run, cut down in size only; its USRN folder and the options."""
    options = []
    for setting in (
        f"data_dir={data_dir}",
        "n_labeled_examples=4",
        "num_images_all=8",
        "pretrained=false",
        "model.layers=14",
        "model.base_width=4",
        "model.out_dim=8",
        "train_supervised.crop_size=32",
        "train_supervised.base_size=40",
        "train_supervised.num_workers=0",
        "train_unsupervised.crop_size=32",
        "train_unsupervised.base_size=40",
        "train_unsupervised.num_workers=0",
        "val_loader.num_workers=0",
        "trainer.epochs=1",
        f"trainer.save_dir={tmp_path}/saved",
        f"trainer.log_dir={tmp_path}/saved",
    ):
        options += ["--set", setting]
    baseline, usrn = (["-c", str(CONFIGS / f"{run}_{name}.json"), *options] for name in ("baseline", "usrn"))
    for arguments in (
        baseline, [*baseline, "--save_feature"], [*baseline, "--clustering"], usrn, [*usrn, "--test"],
    ):  # fmt: skip
        assert command_line.main(arguments) == 0
    return tmp_path / "saved" / f"{run}_usrn", usrn


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory) -> Path:
    tree = voc_tree(tmp_path_factory.mktemp("voc"), train=4, val=2, sbd_only=4, size=(40, 52))
    assert prepare(["voc", "--root", str(tree.folder), "--workers", "1"]) == 0
    return tree.folder


def test_voc_run_on_a_prepared_tree(voc_root, tmp_path, capsys):
    run_dir, _ = run_all_stages("voc_1over32", voc_root, tmp_path)
    results = json.loads((run_dir / "results.json").read_text())
    assert len(results["iou"]) == 21
    with Image.open(next((run_dir / "preds").glob("*.png"))) as prediction:
        assert prediction.getpalette()[3:6] == [128, 0, 0]  # aeroplane
    assert "4 labelled, 4 unlabelled, 2 validation images" in capsys.readouterr().out


def test_city_run_on_a_prepared_tree(tmp_path, capsys):
    tree = cityscapes_tree(tmp_path / "source", train=8, val=2, size=(48, 96))
    root = tmp_path / "cityscapes"
    assert prepare(["cityscapes", "--root", str(root), "--source", str(tree.folder), "--workers", "1"]) == 0
    run_dir, _ = run_all_stages("city_1over8", root, tmp_path)
    results = json.loads((run_dir / "results.json").read_text())
    assert len(results["iou"]) == 19
    with Image.open(next((run_dir / "preds").glob("*_leftImg8bit.png"))) as prediction:
        assert prediction.getpalette()[:3] == [128, 64, 128]  # road
    assert "4 labelled, 4 unlabelled, 2 validation images" in capsys.readouterr().out


def test_split_lists_dropped_beside_the_loaders_are_used(voc_root, tmp_path, monkeypatch, capsys):
    from dataloaders.sets import voc

    monkeypatch.setattr(voc, "LISTS_DIR", tmp_path)
    lists = tmp_path / "voc_splits0"
    lists.mkdir()
    folder = voc_root / "VOCdevkit" / "VOC2012"
    held_out = set((folder / "ImageSets" / "Segmentation" / "val.txt").read_text().split())
    pool = sorted(path.stem for path in (folder / "SegmentationClassAug").glob("*.png") if path.stem not in held_out)
    lines = [f"/JPEGImages/{id_}.jpg /SegmentationClassAug/{id_}.png\n" for id_ in pool]
    (lists / "4_train_supervised.txt").write_text("".join(lines[-4:]))
    (lists / "4_train_unsupervised.txt").write_text("".join(lines[:3]))
    run_dir, _ = run_all_stages("voc_1over16", voc_root, tmp_path)
    assert "4 labelled, 3 unlabelled" in capsys.readouterr().out
    features = run_dir.parent / "voc_1over16_baseline" / "features"
    assert sorted(path.stem for path in features.glob("*.npy")) == pool[-4:]


def original_checkpoint(path: Path, ours: Path) -> None:
    """Our weights in a file as the original writes it."""
    contents = torch.load(ours, weights_only=True)
    contents = {
        "arch": "DistributedDataParallel",
        "epoch": 7,
        "state_dict": contents["state_dict"],
        "monitor_best": np.float64(0.5),
    }
    torch.save(contents, path)


@pytest.fixture(scope="module")
def finished(voc_root, tmp_path_factory) -> tuple[Path, list[str]]:
    """The USRN folder of a run with all stages done, which is not to be changed, and the options."""
    return run_all_stages("voc_1over64", voc_root, tmp_path_factory.mktemp("finished"))


def test_checkpoint_of_the_original_is_evaluated_without_subclass_maps(finished, tmp_path):
    run_dir, usrn = finished
    expected = json.loads((run_dir / "results.json").read_text())
    original_checkpoint(tmp_path / "original.pth", run_dir / "best_model.pth")
    resume = ["--test", "True", "--resume", str(tmp_path / "original.pth")]
    elsewhere = ["--set", "experim_name=other", "--set", f"label_subcls={tmp_path}/nowhere"]
    assert command_line.main([*usrn, *resume, *elsewhere]) == 0
    found = json.loads((run_dir.parent / "other" / "results.json").read_text())
    assert found["iou"] == expected["iou"]


def test_checkpoint_that_does_not_fit_is_refused_with_names_and_shapes(finished, capsys):
    run_dir, usrn = finished
    baseline = run_dir.parent / "voc_1over64_baseline" / "best_model.pth"
    new = ["--set", "experim_name=other"]
    capsys.readouterr()
    assert command_line.main([*usrn, *new, "--test", "--resume", str(baseline)]) == 2
    assert "this checkpoint has no subclass branch" in capsys.readouterr().err
    wider = ["--set", "model.out_dim=12"]
    assert command_line.main([*usrn, *new, *wider, "--test", "--resume", str(run_dir / "best_model.pth")]) == 2
    assert "encoder.aspp.aspp3.bn.weight: shape (8,) in the file, (12,) in the network" in capsys.readouterr().err


def test_best_model_has_the_originals_four_entries_and_its_classes(finished):
    run_dir, _ = finished
    contents = torch.load(run_dir / "best_model.pth", weights_only=True)
    assert set(contents) == {"arch", "epoch", "state_dict", "monitor_best", "classes", "colours"}
    assert (contents["classes"][15], contents["colours"][15]) == ("person", [192, 128, 128])
    assert all(name.startswith("module.") for name in contents["state_dict"])
    mean_iou = json.loads((run_dir / "results.json").read_text())["mean_iou"]
    assert contents["monitor_best"] == pytest.approx(100 * mean_iou, abs=0.0051)
