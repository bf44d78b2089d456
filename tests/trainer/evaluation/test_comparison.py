import numpy as np
from PIL import Image

from dataloaders import open_data
from trainer.evaluation.comparison import GAP, LINE, save_comparison
from utils.config_file import load_config
from utils.palette import save_mask


def test_comparison_has_a_row_of_image_target_and_predictions_for_each_scene(tiny_configs, tmp_path):
    data = open_data(load_config(tiny_configs[0]))
    for sample in data.validation:
        shape = np.asarray(Image.open(sample.label)).shape
        for value, run in enumerate(("a", "b"), 1):
            (tmp_path / run).mkdir(exist_ok=True)
            save_mask(tmp_path / run / f"{sample.id}.png", np.full(shape, value), data.palette)
    save_comparison(tmp_path / "grid.png", data, {"a": tmp_path / "a", "b": tmp_path / "b"})
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    width = max(Image.open(sample.image).width for sample in data.validation)
    columns = [grid[LINE + 5, column * (width + GAP) + width // 2] for column in range(4)]
    assert columns[2].tolist() == data.palette[1].tolist()
    assert columns[3].tolist() == data.palette[2].tolist()
    of_a = (grid == data.palette[1]).all(-1).sum()
    assert of_a > 4 * width * 40  # all five scenes, in both blocks
