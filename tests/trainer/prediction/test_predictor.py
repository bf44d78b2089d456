"""``load_model(checkpoint).predict(image)``."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders import open_data
from dataloaders.sets import cityscapes
from models import build_network
from tests.dataloaders.miniature import save_turned
from trainer.evaluation.evaluate import evaluate
from trainer.loop.assembly import make_network
from trainer.prediction import load_model
from trainer.prediction.predictor import Predictor
from trainer.prediction.whole_image import WholeImages, whole_image_loader
from trainer.stages import Options, run_stage
from utils.checkpoint import save_checkpoint
from utils.config_file import load_config
from utils.config_sections import PredictConfig
from utils.errors import UsageError
from utils.palette import CITYSCAPES_COLOURS, voc_palette

COLOURS = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [13, 14, 15]], np.uint8)


def network(n_classes: int = 5) -> torch.nn.Module:
    """The smallest USRN, whose random weights tell classes apart."""
    torch.manual_seed(3)
    return build_network("USRN", n_classes, 9, layers=14, out_dim=8, base_width=4).eval()


def picture(height: int = 45, width: int = 70) -> np.ndarray:
    image = np.random.default_rng(1).integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), np.uint8)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def predictor(**settings) -> Predictor:
    names = tuple("abcde")
    return Predictor(network(), classes=names, palette=voc_palette(), settings=PredictConfig(**settings))


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "best_model.pth"
    save_checkpoint(path, network(), epoch=1, best=0.5, classes=tuple("abcde"), colours=COLOURS)
    return path


@pytest.fixture
def the_originals(tmp_path):
    """A checkpoint that knows neither classes nor colours, of 19 classes."""
    torch.save({"state_dict": network(19).state_dict()}, tmp_path / "original.pth")
    return tmp_path / "original.pth"


def test_checkpoint_predicts_by_itself(checkpoint, tmp_path):
    image = picture()
    Image.fromarray(image).save(tmp_path / "image.png")
    model = load_model(checkpoint, device="cpu")
    labels = model.predict(image)
    assert (labels.dtype, labels.shape) == (np.uint8, (45, 70))
    assert len(np.unique(labels)) > 1
    for same in (Image.fromarray(image), tmp_path / "image.png", str(tmp_path / "image.png")):
        assert np.array_equal(model.predict(same), labels)
    assert model.classes == tuple("abcde")
    assert np.array_equal(model.palette[:5], COLOURS)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_prediction_has_the_size_that_viewers_show(checkpoint, tmp_path, suffix):
    path = save_turned(tmp_path / f"phone.{suffix}", (40, 72))
    model = load_model(checkpoint, device="cpu")
    assert model.predict(path).shape == (72, 40)
    with Image.open(path) as image:
        assert np.array_equal(model.predict(image), model.predict(path))


def test_16_bit_images_are_predicted_in_the_range_of_the_training(tmp_path, tiny_configs):
    path = tmp_path / "best_model.pth"
    classes = {"classes": tuple("abcde"), "colours": COLOURS}
    save_checkpoint(path, network(), epoch=1, best=0.5, **classes, value_range=(0, 4080))
    image = picture()[..., 0]
    Image.fromarray(image.astype(np.uint16) * 16).save(tmp_path / "deep.tif")
    model = load_model(path, device="cpu")
    expected = model.predict(np.dstack([image] * 3))
    assert np.array_equal(model.predict(tmp_path / "deep.tif"), expected)
    with Image.open(tmp_path / "deep.tif") as deep:
        assert np.array_equal(model.predict(deep), expected)
    config = load_config(tiny_configs[1], ["data.value_range=[0,9]"])
    assert load_model(path, config, device="cpu").value_range == (0, 9)


def test_classes_are_the_configurations_where_the_checkpoint_has_none(the_originals, tiny_configs):
    city = load_config(tiny_configs[1], ["dataset=cityscapes"])
    assert load_model(the_originals, city, device="cpu").classes == cityscapes.CLASSES
    assert load_model(the_originals, city, device="cpu").palette[18].tolist() == list(CITYSCAPES_COLOURS[18])
    assert load_model(the_originals, device="cpu").classes[18] == "18"
    with pytest.raises(UsageError, match="19 classes, but the configuration names 21"):
        load_model(the_originals, load_config(tiny_configs[1], ["dataset=voc"]), device="cpu")


def test_settings_are_the_configurations_unless_given(checkpoint, tiny_configs):
    config = load_config(tiny_configs[0], ["predict.window=64", "predict.scales=[1, 0.5]"])
    assert load_model(checkpoint, config, device="cpu").settings.scales == [1, 0.5]
    assert load_model(checkpoint, config, device="cpu", settings=PredictConfig(window=99)).settings.window == 99


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"state_dict": torch.nn.Conv2d(3, 4, 1).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"other\.pth: holds no network of this project"):
        load_model(tmp_path / "other.pth", device="cpu")


def test_whole_images_get_exactly_the_labels_of_the_evaluation(tiny_configs):
    config = load_config(tiny_configs[0])
    data = open_data(config)
    predicted = Predictor(network(8), classes=data.classes, palette=data.palette)
    compared = []

    def compare(sample, image, target, prediction):
        compared.append(np.array_equal(predicted.predict(sample.image), prediction.numpy()))

    loader = whole_image_loader(config, data, data.validation, torch.device("cpu"))
    evaluate(WholeImages(network(8), torch.device("cpu")), loader, 8, torch.device("cpu"), on_image=compare)
    assert compared == [True] * 5


def test_predict_gives_the_labels_of_test_in_the_configurations_precision(tiny_configs, tmp_path):
    config = load_config(tiny_configs[0], ["trainer.precision=bf16"])
    data = open_data(config)
    torch.manual_seed(3)
    path = tmp_path / "best.pth"
    colours = data.palette[:8]
    save_checkpoint(path, make_network(config, 8, None), epoch=1, best=0.5, classes=data.classes, colours=colours)
    run_stage("test", config, Options(resume=str(path)), torch.device("cpu"))
    of_test = [np.asarray(Image.open(config.run_dir / "preds" / f"{sample.id}.png")) for sample in data.validation]

    def predicted(config):
        model = load_model(path, config, device="cpu")
        return [model.predict(sample.image) for sample in data.validation]

    assert all(map(np.array_equal, predicted(config), of_test))
    assert not all(map(np.array_equal, predicted(load_config(tiny_configs[0])), of_test))


def test_confidence_is_the_probability_of_the_predicted_class():
    image, model = picture(), predictor(window=32, overlap=0.5)
    labels, confidence = model.predict_with_confidence(image)
    probabilities = model.probabilities(image)
    assert np.array_equal(labels, model.predict(image))
    assert np.array_equal(labels, probabilities.argmax(0))
    np.testing.assert_allclose(confidence, probabilities.max(0), rtol=1e-6)
    np.testing.assert_allclose(probabilities.sum(0), 1, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 32])
def test_with_flip_a_mirrored_image_gives_the_mirrored_prediction(window):
    image = picture()
    flipped, plain = predictor(flip=True, window=window, overlap=0.5), predictor()
    there, back = flipped.probabilities(image), flipped.probabilities(image[:, ::-1])[..., ::-1]
    np.testing.assert_allclose(there, back, atol=1e-5)
    assert np.abs(plain.probabilities(image) - plain.probabilities(image[:, ::-1])[..., ::-1]).max() > 1e-3


def test_scales_average_their_logits():
    image = picture()
    one, half, both = (np.log(predictor(scales=scales).probabilities(image)) for scales in ([1.0], [0.5], [1.0, 0.5]))
    mean = torch.from_numpy((one + half) / 2)
    np.testing.assert_allclose(np.exp(both), mean.softmax(0).numpy(), atol=1e-5)
    assert np.abs(one - half).max() > 1e-3


def test_small_and_gray_images_are_predicted():
    model = predictor(scales=[0.5, 1.0], flip=True)
    assert model.predict(picture(1, 3)).shape == (1, 3)
    gray = Image.fromarray(picture()).convert("L")
    assert np.array_equal(model.predict(gray), model.predict(gray.convert("RGB")))


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_than_rgb_in_8_bit_are_refused(array):
    with pytest.raises(UsageError, match="must be uint8"):
        predictor().predict(array)
