"""The demo data set: what is on disk, and that it is the same thing whenever it is made."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataloaders.sets.demo import make as demo
from dataloaders.sets.demo.make import CLASSES, COLOURS, make_demo
from dataloaders.sets.demo.recipe import OBJECTS
from dataloaders.sets.demo.scenes import draw_scene
from utils.errors import UsageError

N_TRAIN, N_VAL = 300, 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "demo"
    make_demo(root, n_train=N_TRAIN, n_val=N_VAL, quiet=True)
    return root


@pytest.fixture(scope="module")
def voc(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


@pytest.fixture(scope="module")
def pixels(voc: Path) -> np.ndarray:
    """Pixels of each class in each training image: (images, classes)."""
    masks = sorted((voc / "SegmentationClass").glob("train_*.png"))
    return np.stack([np.bincount(_indices(mask).ravel(), minlength=len(CLASSES)) for mask in masks])


def _indices(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def _ids(voc: Path, split: str) -> list[str]:
    return (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_lists_are_disjoint_and_name_every_image_and_mask(voc: Path):
    train, val = _ids(voc, "train"), _ids(voc, "val")
    assert (len(set(train)), len(set(val))) == (N_TRAIN, N_VAL)
    assert not set(train) & set(val)
    assert {path.stem for path in (voc / "JPEGImages").iterdir()} == {*train, *val}
    assert {path.stem for path in (voc / "SegmentationClass").iterdir()} == {*train, *val}


def test_every_mask_is_a_palette_image_of_class_indices_as_large_as_its_image(voc: Path):
    sizes = set()
    for image_id in (*_ids(voc, "train"), *_ids(voc, "val")):
        mask = Image.open(voc / "SegmentationClass" / f"{image_id}.png")
        image = Image.open(voc / "JPEGImages" / f"{image_id}.jpg")
        assert mask.mode == "P"
        assert np.asarray(mask).max() < len(CLASSES)
        assert mask.size == image.size
        sizes.add(image.size)
    assert len(sizes) > 50
    assert all(112 <= side <= 144 for size in sizes for side in size)


def test_palette_and_class_file_have_the_same_colours(voc: Path):
    lines = [line.split() for line in (voc / "classes.txt").read_text().splitlines()]
    assert tuple(name for name, *_ in lines) == CLASSES
    assert tuple(tuple(map(int, rgb)) for _, *rgb in lines) == COLOURS
    assert len(set(COLOURS)) == len(CLASSES)
    palette = Image.open(voc / "SegmentationClass" / "train_0000.png").getpalette()
    assert tuple(zip(*[iter(palette)] * 3, strict=True))[: len(CLASSES)] == COLOURS


def test_pixel_shares_go_from_over_60_percent_to_under_one_percent(pixels: np.ndarray):
    share = dict(zip(CLASSES, pixels.sum(0) / pixels.sum(), strict=True))
    assert 0.60 < share["background"] < 0.72
    assert 0.11 < share["disk"] < 0.16
    assert 0.06 < share["block"] < 0.10
    assert all(0.02 < share[name] < 0.06 for name in ("ring", "triangle", "pole"))
    assert all(0.005 < share[name] < 0.009 for name in ("star", "cross"))


def test_24_random_images_hold_every_class_nine_times_in_ten(pixels: np.ndarray):
    visible = pixels >= 50
    rng = np.random.default_rng(0)
    draws = (rng.choice(len(visible), 24, replace=False) for _ in range(2000))
    assert np.mean([visible[draw].any(0).all() for draw in draws]) > 0.9


def test_same_seed_gives_the_same_bytes_and_another_seed_other_scenes(tmp_path: Path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_demo(tmp_path / name, seed=seed, n_train=4, n_val=2, quiet=True)
    a, b, c = (_digests(tmp_path / name) for name in "abc")
    assert a == b
    scenes = [name for name in a if name.endswith((".jpg", ".png"))]
    assert len(scenes) == 12
    assert not any(a[name] == c[name] for name in scenes)


def test_a_scene_does_not_depend_on_how_many_others_there_are(root: Path, tmp_path: Path):
    make_demo(tmp_path / "few", n_train=2, n_val=2, quiet=True)
    all_scenes, few = _digests(root), _digests(tmp_path / "few")
    scenes = [name for name in few if name.endswith((".jpg", ".png"))]
    assert len(scenes) == 8
    assert all(few[name] == all_scenes[name] for name in scenes)


def test_training_and_validation_scenes_differ(voc: Path):
    images = [path.read_bytes() for path in (voc / "JPEGImages").iterdir()]
    assert len(set(images)) == N_TRAIN + N_VAL


def test_size_scales_the_scene():
    _, small = draw_scene(np.random.default_rng(5), 64)
    _, large = draw_scene(np.random.default_rng(5), 256)
    assert 56 <= min(small.shape) <= max(small.shape) <= 72
    assert 224 <= min(large.shape) <= max(large.shape) <= 288


def test_the_same_data_set_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_demo(tmp_path / "demo", n_train=2, n_val=1, quiet=True)
    monkeypatch.setattr(demo, "draw_scene", _interrupt)
    make_demo(tmp_path / "demo", n_train=2, n_val=1, quiet=True)


@pytest.mark.parametrize("change", [{"seed": 1}, {"n_train": 3}, {"n_val": 2}, {"size": 64}])
def test_a_data_set_made_from_anything_else_is_replaced(tmp_path: Path, change: dict[str, int]):
    make_demo(tmp_path / "demo", n_train=2, n_val=1, quiet=True)
    before = _digests(tmp_path / "demo")
    make_demo(tmp_path / "demo", **({"n_train": 2, "n_val": 1} | change), quiet=True)
    make_demo(tmp_path / "fresh", **({"n_train": 2, "n_val": 1} | change), quiet=True)
    assert before != _digests(tmp_path / "demo") == _digests(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "fresh"}


def test_a_change_of_recipe_makes_the_data_set_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_demo(tmp_path / "demo", n_train=2, n_val=1, quiet=True)
    before = _digests(tmp_path / "demo")
    monkeypatch.setattr("dataloaders.sets.demo.recipe.OBJECTS", OBJECTS[:-1])
    make_demo(tmp_path / "demo", n_train=2, n_val=1, quiet=True)
    assert _digests(tmp_path / "demo")["demo.json"] != before["demo.json"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _interrupt_after(n_scenes: int):
    left = iter(range(n_scenes))
    return lambda rng, size: draw_scene(rng, size) if next(left, None) is not None else _interrupt()


def test_interrupted_making_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "draw_scene", _interrupt_after(2))
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", n_train=3, n_val=1, quiet=True)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    make_demo(tmp_path / "demo", n_train=3, n_val=1, quiet=True)
    assert len(list((tmp_path / "demo").rglob("*.jpg"))) == 4


def test_interrupted_replacing_keeps_the_data_set_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_demo(tmp_path / "demo", n_train=2, n_val=1, quiet=True)
    before = _digests(tmp_path / "demo")
    monkeypatch.setattr(demo, "draw_scene", _interrupt_after(2))
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", seed=1, n_train=2, n_val=1, quiet=True)
    assert _digests(tmp_path / "demo") == before


def test_a_folder_with_something_else_in_it_is_refused_and_kept(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not the demo data set"):
        make_demo(tmp_path, n_train=1, n_val=1, quiet=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path):
    (tmp_path / "demo").mkdir()
    make_demo(tmp_path / "demo", n_train=1, n_val=1, quiet=True)
    assert (tmp_path / "demo" / "demo.json").is_file()
