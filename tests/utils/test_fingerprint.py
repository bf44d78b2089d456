import os

import pytest

from utils.fingerprint import changed, fingerprint, sha256


@pytest.mark.parametrize("size", [0, 10, 2**16, 2**16 + 1, 10**6])
def test_copy_with_another_time_is_the_same_and_a_change_at_either_end_is_not(tmp_path, size):
    contents = bytearray(os.urandom(size))
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(contents)
    other.write_bytes(contents)
    os.utime(other, (1, 1))
    assert fingerprint(one) == fingerprint(other) != ""
    other.write_bytes(contents + b"\0")
    assert fingerprint(one) != fingerprint(other)
    for at in (0, size - 1) if size else ():
        contents[at] ^= 1
        other.write_bytes(contents)
        assert fingerprint(one) != fingerprint(other)
        contents[at] ^= 1


def test_what_cannot_be_read_has_an_empty_fingerprint(tmp_path):
    assert fingerprint(tmp_path / "gone") == fingerprint(tmp_path) == ""


def test_changed_names_what_is_another_one_or_none_now():
    assert changed({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "3"}) == ["b", "c"]


def test_sha256_is_that_of_the_contents(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file").startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
