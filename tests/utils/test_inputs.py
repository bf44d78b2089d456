import os
import re
import socket

import pytest
from pydantic import TypeAdapter

from utils.errors import UsageError
from utils.inputs import open_plain, read_json, read_plain


def test_whole_file_is_read_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_plain(tmp_path / "link") == b"content"


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device", "loop", "dangling", "null"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # opening it in the usual way waits for somebody who writes
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind in ("loop", "dangling", "device"):
        path.symlink_to({"loop": "x", "dangling": "y", "device": "/dev/zero"}[kind])
    else:
        path = tmp_path / "a\0b"
    with pytest.raises(OSError, match=re.escape(str(path).split("\0")[0])) as error:
        open_plain(path)
    assert error.value.strerror
    assert error.value.filename == str(path)


def test_file_that_is_larger_than_any_is_not_read(tmp_path):
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**40)  # of holes: it takes no room
    with pytest.raises(OSError, match="1,099,511,627,776 bytes"):
        read_plain(tmp_path / "huge")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_refused(tmp_path):
    (tmp_path / "file").touch(mode=0)
    with pytest.raises(OSError, match="Permission denied"):
        open_plain(tmp_path / "file")


def test_json_error_says_file_key_reason_and_way_out(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1, "two"]}')
    with pytest.raises(UsageError, match=r"x.json: is damaged \(key a.1: .*integer.*\). Do this."):
        read_json(tmp_path / "x.json", TypeAdapter(dict[str, list[int]]), "Do this.")
