"""A run of stage 3 on tiny features."""

import numpy as np
from PIL import Image

from dataloaders import Sample, SegmentationData
from tests.dataloaders.miniature import data_of
from trainer.subclasses.features import features_dir
from utils.config import Config


def make_run(folder, names) -> tuple[Config, SegmentationData]:
    """Images of two classes with features of four clear modes in class 0, at an eighth of the label's size."""
    settings = {
        "name": "Baseline",
        "experim_name": "run_baseline",
        "dataset": "custom",
        "data_dir": str(folder),
        "n_labeled_examples": len(names),
        "num_images_all": len(names),
        "subclass_counts": [4, 1],
        "model": {"out_dim": 4},
        "trainer": {"epochs": 1, "save_dir": str(folder / "saved")},
    }
    config = Config.model_validate(settings)
    rng = np.random.default_rng(0)
    features_dir(config).mkdir(parents=True)
    samples = []
    for name in names:
        sample = Sample(name, folder / f"{name}.jpg", folder / f"{name}.png")
        mask = np.zeros((32, 40), np.uint8)
        mask[:, 24:] = 1
        mask[:8] = 255
        Image.fromarray(mask).save(sample.label)
        sample.image.touch()
        feature = 10 * np.eye(4)[rng.integers(0, 4, (4, 5))].transpose(2, 0, 1) + rng.normal(0, 0.1, (4, 4, 5))
        np.save(features_dir(config) / f"{name}.npy", feature.astype(np.float16))
        samples.append(sample)
    return config, data_of(samples, classes=("sky", "road"))
