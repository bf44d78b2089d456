import numpy as np
import pytest
import torch

from dataloaders import Sample
from trainer.evaluation.image_scores import ImageScores, read_image_counts, read_image_scores
from utils.errors import UsageError


def test_score_of_an_image_is_the_mean_over_the_classes_in_its_mask(tmp_path):
    samples = tuple(Sample(id_, tmp_path) for id_ in ("half, wrong", "right", "unlabelled"))
    image_scores = ImageScores(samples, 3, torch.device("cpu"))
    target = torch.tensor([[0, 0, 0, 0]])
    image_scores(samples[1], None, target, target)
    image_scores(samples[0], None, target, torch.tensor([[0, 0, 1, 2]]))  # classes 1 and 2 are not in the mask
    image_scores(samples[2], None, torch.full((1, 4), -1), target)
    image_scores.save(tmp_path)
    assert read_image_scores(tmp_path / "images.csv") == {"half, wrong": 0.5, "right": 1.0}
    counts = np.load(tmp_path / "images.npz")
    assert counts["ids"].tolist() == [sample.id for sample in samples]
    assert counts["counts"][0].tolist() == [[2, 0, 0], [4, 0, 0], [2, 1, 1]]  # right, target, predicted
    assert not counts["counts"][2].any()


def test_no_file_is_no_scores(tmp_path):
    assert read_image_scores(tmp_path / "images.csv") == {}


def test_counts_that_are_damaged_are_named_with_the_command_that_counts_again(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, counts=np.zeros((2, 3, 4), np.int64))
    whole = path.read_bytes()
    assert read_image_counts(path).shape == (2, 3, 4)
    np.savez(path, counts=np.array(["text"]))
    texts = path.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros((2, 3, 4), np.int64))
    for content in (b"", b"junk", whole[:-40], texts, (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"images\.npz: cannot be read .*python3 main.py --test True --force"):
            read_image_counts(path)
