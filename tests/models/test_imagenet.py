"""torchvision's ImageNet weights: read or fetched, and every way in which that can fail."""

from contextlib import nullcontext
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from models.imagenet import FILES, WEIGHTS, are_to_be_had, imagenet_weights
from utils.errors import UsageError


def no_connection(*args, **kwargs):
    raise URLError("no route to host")


@pytest.mark.parametrize("name", [FILES[50], Path(WEIGHTS[50].url).name])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_there_is_read_without_network(tmp_path, monkeypatch, name: str, zipped: bool):
    monkeypatch.setattr("torch.hub.download_url_to_file", no_connection)
    # The files of 2017 hold Parameters in the format before zip.
    saved = {"conv1.weight": torch.nn.Parameter(torch.rand(2, 3))}
    torch.save(saved, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert torch.equal(imagenet_weights(50, tmp_path)["conv1.weight"], saved["conv1.weight"])


def test_a_missing_file_is_fetched_into_the_folder_with_its_hash_checked(tmp_path, monkeypatch):
    fetched = []

    def download(url, destination, hash_prefix, progress):
        fetched.append((url, hash_prefix))
        torch.save({"bn1.bias": torch.ones(2)}, destination)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    for _ in range(2):
        assert torch.equal(imagenet_weights(101, tmp_path / "pretrained")["bn1.bias"], torch.ones(2))
    assert fetched == [(WEIGHTS[101].url, "63fe2227")]


@pytest.mark.parametrize("layers", [50, 101])
def test_a_missing_file_that_cannot_be_fetched_says_what_to_do(tmp_path, monkeypatch, layers: int):
    monkeypatch.setattr("torch.hub.download_url_to_file", no_connection)
    with pytest.raises(UsageError) as error:
        imagenet_weights(layers, tmp_path)
    assert str(tmp_path / FILES[layers]) in str(error.value)
    assert '"pretrained": false' in str(error.value)
    assert "no route to host" in str(error.value)


@pytest.mark.parametrize("name", [FILES[50], Path(WEIGHTS[50].url).name])
def test_weights_are_to_be_had_from_a_file_or_from_a_server_that_answers(tmp_path, monkeypatch, name: str):
    asked = []
    monkeypatch.setattr("models.imagenet.urlopen", lambda request, timeout: asked.append(request) or nullcontext())
    assert are_to_be_had(50, tmp_path)
    assert [(request.method, request.full_url) for request in asked] == [("HEAD", WEIGHTS[50].url)]
    monkeypatch.setattr("models.imagenet.urlopen", no_connection)
    assert not are_to_be_had(50, tmp_path)
    (tmp_path / name).write_bytes(b"weights")
    assert are_to_be_had(50, tmp_path)


@pytest.mark.parametrize("name", [FILES[50], Path(WEIGHTS[50].url).name])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut off"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} cannot be read"):
        imagenet_weights(50, tmp_path)


def test_depths_without_imagenet_weights_say_so(tmp_path):
    with pytest.raises(UsageError, match="14 layers.*false"):
        imagenet_weights(14, tmp_path)
