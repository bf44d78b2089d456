import numpy as np
import pytest
from PIL import Image

from trainer.subclasses.picture import save_subclass_picture
from trainer.subclasses.table import SubclassTable


def draw(path, *classes):
    table = SubclassTable(list(classes), [1] * len(classes), [9] * len(classes), [0.0] * len(classes), "a", 1, "")
    save_subclass_picture(path, table)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


@pytest.mark.parametrize("name", ["$\\frac{", "$x$", "a_b^c", "\\alpha", "100 %", "<b>"])
def test_class_names_are_drawn_as_they_are(tmp_path, name):
    drawn = draw(tmp_path / "picture.png", "road", name)
    assert (drawn < 128).any()


def test_dollar_in_a_class_name_is_drawn(tmp_path):
    assert not np.array_equal(draw(tmp_path / "a.png", "road", "$x$"), draw(tmp_path / "b.png", "road", "x"))
