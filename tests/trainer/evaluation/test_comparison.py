import numpy as np
import pytest
from PIL import Image

from dataloaders import Sample, SegmentationData, open_data
from trainer.evaluation.comparison import GAP, LINE, MAX_HEIGHT, MAX_WIDTH, save_comparison
from trainer.evaluation.report.pictures import mask_picture, pictures_of
from utils.config_file import load_config
from utils.errors import UsageError
from utils.palette import save_mask, voc_palette


def test_comparison_has_a_row_of_image_target_and_predictions_for_each_scene(tiny_configs, tmp_path):
    data = open_data(load_config(tiny_configs[0]))
    for sample in data.validation:
        shape = np.asarray(Image.open(sample.label)).shape
        for value, run in enumerate(("a", "b"), 1):
            (tmp_path / run / "preds").mkdir(parents=True, exist_ok=True)
            save_mask(tmp_path / run / "preds" / f"{sample.id}.png", np.full(shape, value), data.palette)
    save_comparison(tmp_path / "grid.png", data, {"a": tmp_path / "a", "b": tmp_path / "b"})
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    width = max(Image.open(sample.image).width for sample in data.validation)
    columns = [grid[LINE + 5, column * (width + GAP) + width // 2] for column in range(4)]
    assert columns[2].tolist() == data.palette[1].tolist()
    assert columns[3].tolist() == data.palette[2].tolist()
    of_a = (grid == data.palette[1]).all(-1).sum()
    assert of_a > 4 * width * 40  # all five scenes, in both blocks


@pytest.fixture
def long_and_narrow(tmp_path):
    """A data set of images 1 x 3000, 20000 x 2 and of a usual shape, and a run that has predicted it."""
    samples = []
    (tmp_path / "run" / "preds").mkdir(parents=True)
    for id_, size in (("high", (1, 3000)), ("wide", (20000, 2)), ("usual", (400, 300))):
        sample = Sample(id_, tmp_path / f"{id_}.jpg", tmp_path / f"{id_}.png")
        Image.new("RGB", size).save(sample.image)
        save_mask(sample.label, np.zeros(size[::-1]), voc_palette())
        save_mask(tmp_path / "run" / "preds" / f"{id_}.png", np.ones(size[::-1]), voc_palette())
        samples.append(sample)
    return SegmentationData(("ground", "sky"), voc_palette(), (), (), tuple(samples), ignore_index=255)


def test_comparison_of_long_and_narrow_images_is_of_bounded_size(long_and_narrow, tmp_path):
    save_comparison(tmp_path / "grid.png", long_and_narrow, {"a": tmp_path / "run", "b": tmp_path / "run"})
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width < 2 * 4 * (MAX_WIDTH + 2 * GAP)
        assert grid.height < 2 * (MAX_HEIGHT + GAP) + 4 * LINE


def test_report_pictures_of_long_and_narrow_images_are_small(long_and_narrow, tmp_path):
    for sample in long_and_narrow.validation:
        pictures = pictures_of(sample, long_and_narrow, {"run": tmp_path / "run"})
        assert all(len(uri) < 5000 for uri in pictures.values())
    assert len(mask_picture(np.zeros((60_000, 1)), voc_palette())) < 5000


@pytest.mark.parametrize("damage", ["missing", "truncated", "folder", "other size", "other class"])
def test_prediction_that_cannot_be_shown_is_named_with_the_command_that_makes_it_again(
    long_and_narrow, tmp_path, damage
):
    path = tmp_path / "run" / "preds" / "usual.png"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-30])
    elif damage == "folder":
        path.mkdir()
    elif damage.startswith("other"):
        size, value = ((2, 2), 0) if damage == "other size" else ((300, 400), 2)
        save_mask(path, np.full(size, value), voc_palette())
    with pytest.raises(UsageError, match=r"usual.png: .*Evaluate that run again: python3 main.py --test True --force"):
        save_comparison(tmp_path / "grid.png", long_and_narrow, {"a": tmp_path / "run"})
