import pytest

from dataloaders.sets.class_file import read_class_file
from utils.errors import UsageError

COLOURED = [("sky", (0, 0, 0)), ("tall tree", (128, 0, 0)), ("road", (0, 128, 0))]
NAMED = [(name, None) for name, _ in COLOURED]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("sky\ntall tree\nroad\n", NAMED),
        ("sky 0 0 0\ntall tree 128 0 0\nroad 0 128 0", COLOURED),
        ("0 0 0 sky\n128 0 0 tall tree\n0 128 0 road", COLOURED),
        ("0 0 0\tsky\n128 0 0\ttall tree\n0 128 0\troad", COLOURED),
        ("name,r,g,b\nsky,0,0,0\ntall tree,128,0,0\nroad,0,128,0", COLOURED),
        ("name, R, G, B\nsky, 0, 0, 0\ntall tree, 128, 0, 0\nroad, 0, 128, 0", COLOURED),
        ("id;red;green;blue;name\n0;0;0;0;sky\n1;128;0;0;tall tree\n2;0;128;0;road", COLOURED),
        ("Class\tR\tG\tB\n1\t0\t0\t0\tsky\n2\t128\t0\t0\ttall tree\n3\t0\t128\t0\troad", COLOURED),
        ("# label:color_rgb:parts:actions\nsky:0,0,0::\ntall tree:128,0,0::\nroad:0,128,0::", COLOURED),
        ("sky:::\ntall tree:::\nroad:::", NAMED),
        ("__ignore__\nsky\ntall tree\nroad", NAMED),
    ],
)
def test_lists_of_all_tools_are_read(tmp_path, text, rows):
    (tmp_path / "classes.txt").write_text(text)
    assert read_class_file(tmp_path / "classes.txt") == rows


@pytest.mark.parametrize("name", ["class 1", "2", "road (paved), wet", "a:b", "#1"])
def test_names_keep_their_figures_and_signs(tmp_path, name):
    (tmp_path / "classes.txt").write_text(f"sky\n{name}\n")
    assert read_class_file(tmp_path / "classes.txt")[1] == (name, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class. Write a class a line"),
        ("sky\nroad\nsky\n", "2 classes are called 'sky'"),
        ("sky 0 0 0\nroad 0 0 300\n", "'road 0 0 300' has a colour beyond 255"),
        ("name,r,g,b\nsky,0,0\n", "'sky,0,0' is not understood. Write"),
        ('{"classes": []}', "another kind. Write a class a line: <name>"),
    ],
)
def test_what_is_no_list_of_classes_is_refused_with_the_format(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UsageError) as error:
        read_class_file(tmp_path / "classes.txt")
    assert message in str(error.value)
