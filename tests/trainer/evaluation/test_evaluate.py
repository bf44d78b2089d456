import json

import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders import Sample, open_data
from trainer.evaluation.evaluate import (
    PredictionWriter,
    column,
    evaluate,
    save_results,
    scores_table,
)
from trainer.evaluation.measures import contents
from trainer.evaluation.run_json import read_results
from trainer.prediction.whole_image import WholeImages, whole_image_loader
from utils.config_file import load_config
from utils.errors import NotFiniteError
from utils.metrics import scores
from utils.palette import voc_palette


class Brightest(torch.nn.Module):
    """Logits that depend on the pixel alone: dark pixels are class 0, bright ones class 1."""

    def forward(self, images):
        gray = images.mean(1, keepdim=True)
        return torch.cat([-gray, gray], dim=1)


def whole(network: torch.nn.Module) -> WholeImages:
    return WholeImages(network, torch.device("cpu"))


@pytest.fixture
def config_and_data(tiny_configs):
    config = load_config(tiny_configs[0])
    return config, open_data(config)


def test_every_validation_image_counts_once_whatever_the_batch_size(config_and_data):
    config, data = config_and_data
    counts = []
    for batch_size in (1, 3):
        settings = config.val_loader.model_copy(update={"batch_size": batch_size})
        sized = config.model_copy(update={"val_loader": settings})
        loader = whole_image_loader(sized, data, data.validation, torch.device("cpu"))
        result = evaluate(whole(Brightest()), loader, len(data.classes), torch.device("cpu"))
        counts.append((result.labelled, result.correct))
    assert counts[0] == counts[1]
    assert counts[0][0] == sum(Image.open(sample.label).size[0] * Image.open(sample.label).size[1]
                               for sample in data.validation)  # fmt: skip


def test_evaluation_leaves_the_network_in_the_mode_it_came_in(config_and_data):
    config, data = config_and_data
    network = Brightest().train()
    loader = whole_image_loader(config, data, data.validation, torch.device("cpu"))
    evaluate(whole(network), loader, 8, torch.device("cpu"))
    assert network.training


def test_logits_that_are_not_finite_are_counted_and_refused(config_and_data):
    class OneNaN(Brightest):
        def forward(self, images):
            logits = super().forward(images)
            logits[:, 1, 0, 0] = torch.nan
            return logits

    config, data = config_and_data
    loader = whole_image_loader(config, data, data.validation, torch.device("cpu"))
    with pytest.raises(NotFiniteError, match=r"^best\.pth: its logits are not finite in 5 pixels"):
        evaluate(whole(OneNaN()), loader, len(data.classes), torch.device("cpu"), name="best.pth")


def test_predictions_are_palette_images_of_the_images_size(config_and_data, tmp_path):
    config, data = config_and_data
    seen = {}

    def on_image(sample, image, target, prediction):
        seen[sample.id] = prediction.numpy()
        PredictionWriter(tmp_path / "preds", data.palette)(sample, image, target, prediction)

    loader = whole_image_loader(config, data, data.validation, torch.device("cpu"))
    evaluate(whole(Brightest()), loader, len(data.classes), torch.device("cpu"), on_image=on_image)
    for sample in data.validation:
        with Image.open(tmp_path / "preds" / f"{sample.id}.png") as mask, Image.open(sample.image) as image:
            assert mask.mode == "P"
            assert mask.size == image.size
            assert np.array_equal(np.asarray(mask), seen[sample.id])


def test_prediction_colours_are_those_of_the_data_set(tmp_path):
    writer = PredictionWriter(tmp_path, voc_palette())
    writer(Sample("a", tmp_path / "a.jpg"), None, None, torch.tensor([[0, 15]]))
    assert np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).tolist() == [[[0, 0, 0], [192, 128, 128]]]


def test_table_shows_every_class_the_mean_and_the_change():
    table = scores_table(("road", "sky"), {"baseline": [0.5, float("nan"), 0.5], "USRN": [0.625, 0.25, 0.4375]})
    rows = [line.split() for line in table.splitlines()]
    assert ["road", "50.00", "62.50", "+12.50"] in rows
    assert ["sky", "-", "25.00", "-"] in rows
    assert rows[-1] == ["mean", "50.00", "43.75", "-6.25"]


def test_results_come_back_as_they_were_written(tmp_path):
    counts = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    save_results(tmp_path / "r.json", contents(("a", "b", "c"), scores(counts)) | {"checkpoint": "x"})
    assert json.loads((tmp_path / "r.json").read_text())["iou"]["c"] is None
    values = column(read_results(tmp_path / "r.json"))
    assert values[:2] == [0.75, 0.8]
    assert np.isnan(values[2])
    assert values[3] == pytest.approx(0.775)
