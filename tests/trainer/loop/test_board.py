import json

import numpy as np
import pytest
import torch

from dataloaders import open_data
from dataloaders.photometry import denormalise, normalise
from dataloaders.reading import IGNORE
from trainer.loop.board import GAP, UNLABELLED_PICTURE, Board
from trainer.subclasses.table import SubclassTable
from utils.config_file import load_config
from utils.metrics import scores


@pytest.fixture
def board(tiny_configs):
    config = load_config(tiny_configs[1], ["trainer.tensorboardX=false"])
    table = SubclassTable(["a"] * 8, [2] + [1] * 7, [], [], "balanced_kmeans", 0, "")
    board = Board(config, open_data(config), 0, table)
    board.begin(0, 0)
    return board


def test_unlabelled_picture_goes_from_the_weak_view_to_the_pseudo_label(board):
    images = torch.rand(1, 3, 8, 8)
    out = {
        "p_cls": torch.eye(8)[3].view(1, 8, 1, 1).expand(1, 8, 4, 4),
        "pseudo_sub": torch.full((1, 4, 4), 2),  # of class 1: class 0 has subclasses 0 and 1
        "left_alone": torch.tensor([[[True, False, True, False]] * 4]),
        "pseudo_label": torch.full((1, 4, 4), IGNORE),
    }
    board.keep_unlabelled({"u_weak": normalise(images), "u_strong": normalise(1 - images)}, out)
    ((tag, picture),) = board._pictures
    assert tag == f"{UNLABELLED_PICTURE}/0"
    starts = range(0, picture.shape[2], 8 + GAP)
    weak, strong, class_label, parent, gate, pseudo_label = (picture[..., start : start + 8] for start in starts)
    assert torch.equal(weak, denormalise(normalise(images))[0])
    assert torch.allclose(strong.float(), 255 - weak.float(), atol=1)
    for mask, value in ((class_label, 3), (parent, 1), (pseudo_label, 255)):
        assert np.array_equal(mask[:, 0, 0], board.palette[value])
    assert gate[0, 0].tolist() == [255, 255, 0, 0, 255, 255, 0, 0]


def test_nothing_is_drawn_before_there_are_pseudo_labels(board):
    board.keep_unlabelled({}, {"total": torch.tensor(1.0)})
    assert board._pictures == []


def test_history_has_shares_only_where_there_are_pseudo_labels(board):
    result = scores(torch.eye(8, dtype=torch.int64))
    board.validation(2, 0, result, result, False, [0.125] * 8, None)
    board.validation(4, 1, result, result, False, [0.125] * 8, [1.0] + [0.0] * 7)
    first, second = (json.loads(line) for line in board.history.read_text().splitlines())
    assert "pseudo_label_shares" not in first
    assert second["pseudo_label_shares"][0] == 1
    assert second["label_shares"] == [0.125] * 8


def test_denormalised_images_are_what_was_normalised():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(denormalise(normalise(images.float() / 255)), images)
