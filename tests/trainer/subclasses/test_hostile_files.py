"""Tables, maps and features that are damaged, of another run or of other kinds."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.trainer.runs import CPU
from tests.trainer.subclasses.small_run import make_run
from trainer.subclasses.agreement import check_subclass_maps
from trainer.subclasses.features import features_dir
from trainer.subclasses.make import make_subclasses
from trainer.subclasses.samples import ImageSamples
from trainer.subclasses.table import read_subclass_table
from utils.config import USRN
from utils.errors import UsageError


@pytest.fixture(scope="module")
def subclasses(tmp_path_factory):
    """What stage 3 makes, 4 and 1 subclasses; to be copied."""
    config, data = make_run(tmp_path_factory.mktemp("made"), ("a", "b"))
    make_subclasses(config, data, CPU)
    return config.subclass_dir


@pytest.fixture
def run(subclasses, tmp_path):
    """A USRN's configuration and data, whose stage 3 is done."""
    config, data = make_run(tmp_path, ("a", "b"))
    shutil.copytree(subclasses, config.subclass_dir)
    return config.model_copy(update={"name": USRN, "experim_name": "run_usrn"}), data


def change(config, **entries):
    path = config.subclass_dir / "subclasses.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"counts": [1, 4]}, "a class of one subclass has an inertia"),
        ({"counts": [4, 2]}, "it has 5 sizes for 6 subclasses"),
        ({"counts": [1, 1, 1]}, "not of its classes"),
        ({"counts": [0, 5]}, "key counts.0"),
        ({"counts": [4, True]}, "key counts.1"),
        ({"counts": [39_999, 1], "sizes": []}, "it has 40,000 subclasses; at most 32,767"),
        ({"counts": [10**18, 1]}, "it has 5 sizes for"),
        ({"sizes": [1, 2, 3, 4, -5]}, "key sizes.4"),
        ({"sizes": [1, 2, 3, 4, 5.5]}, "key sizes.4"),
        ({"inertia": [float("nan"), 0]}, "key inertia.0"),
        ({"algorithm": None}, "key algorithm"),
        ({"wanted": {"sky": "4"}}, "key wanted.sky"),
        ({"another": 1}, "key another"),
        ({"classes": ["sky", "lake"]}, "the first that differs is 'road' here, 'lake' there"),
        ({"classes": ["road", "sky"]}, "the first that differs is 'sky' here, 'road' there"),
    ],
)
def test_table_that_cannot_be_of_this_run_is_refused(run, entries, message):
    config, data = run
    change(config, **entries)
    with pytest.raises(UsageError, match=rf"subclasses\.json: .*{message}.*--clustering True --force"):
        read_subclass_table(config, data)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000], ids=range(6))
def test_table_that_is_none_is_refused(run, content):
    config, data = run
    (config.subclass_dir / "subclasses.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"subclasses\.json: is damaged .*--clustering True --force"):
        read_subclass_table(config, data)


def test_maps_of_a_run_are_those_of_its_masks_and_table(run):
    check_subclass_maps(*run)


def test_counts_that_are_shifted_between_classes_are_seen_in_the_maps(run):
    config, data = run
    change(config, counts=[3, 2], inertia=[1.0, 1.0])
    with pytest.raises(UsageError, match=r"of the pixels of the class sky have a subclass of another class"):
        check_subclass_maps(config, data)


def test_masks_that_were_changed_after_stage_3_are_seen_in_the_maps(run):
    config, data = run
    mask = np.asarray(Image.open(data.labelled[1].label))
    Image.fromarray(np.where(mask == 255, 255, 1 - mask).astype(np.uint8)).save(data.labelled[1].label)
    with pytest.raises(UsageError, match="subclass of another class"):
        check_subclass_maps(config, data)


def npy(header: str, values: bytes = b"") -> bytes:
    """An .npy file with this header, whatever it says."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


HEADER = "{{'descr': {}, 'fortran_order': False, 'shape': {}, }}"
FEATURES = {
    "strings": npy(HEADER.format("'<U4'", (4, 4, 5)), bytes(16 * 80)),
    "dates": npy(HEADER.format("'<M8[D]'", (4, 4, 5)), bytes(8 * 80)),
    "objects": npy(HEADER.format("'|O'", (4, 4, 5)), bytes(8 * 80)),
    "whole numbers": npy(HEADER.format("'<i8'", (4, 4, 5)), bytes(8 * 80)),
    "records": npy(HEADER.format("[('a', '<f2')]", (4, 4, 5)), bytes(2 * 80)),
    "giant": npy(HEADER.format("'<f2'", (2**40, 2**40, 5)), bytes(2 * 80)),
    "large": npy(HEADER.format("'<f2'", (4, 2**40, 5)), bytes(2 * 80)),
    "negative": npy(HEADER.format("'<f2'", (-4, -4, 5)), bytes(2 * 80)),
    "one negative": npy(HEADER.format("'<f2'", (4, -1, 5)), bytes(2 * 80)),
    "other shape": npy(HEADER.format("'<f2'", (4, 5, 4)), bytes(2 * 80)),
    "no shape": npy(HEADER.format("'<f2'", "'x'"), bytes(2 * 80)),
    "no type": npy(HEADER.format("'nonsense'", (4, 4, 5)), bytes(2 * 80)),
    "no header": npy("os.system('true')"),
    "truncated": npy(HEADER.format("'<f2'", (4, 4, 5)), bytes(2 * 79)),
}


@pytest.mark.parametrize("kind", [*FEATURES, "archive", "folder"])
def test_feature_file_of_another_kind_is_refused_by_its_header(run, kind):
    config, data = run
    path = features_dir(config) / "b.npy"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "archive":
        with open(path, "wb") as file:
            np.savez(file, np.zeros((4, 4, 5), np.float16))
    else:
        path.write_bytes(FEATURES[kind])
    with pytest.raises(UsageError, match=r"b\.npy: (is no feature file|has the shape|the feature .* is missing)"):
        ImageSamples(data.labelled[1], config, data)


@pytest.mark.parametrize("damage", ["other length", "other clusters", "text", "folder"])
def test_kept_clusters_of_an_interrupted_stage_are_made_anew_where_they_are_damaged(tmp_path, monkeypatch, damage):
    config, data = make_run(tmp_path, ("a", "b"))
    whole = make_subclasses(config, data, CPU)
    monkeypatch.setattr("trainer.subclasses.make._FinishedClasses.clear", lambda self: None)
    make_subclasses(config, data, CPU)
    (kept,) = (config.subclass_dir / ".finished_classes").iterdir()
    labels = np.load(kept)["labels"]
    kept.unlink()
    wrong = {"other length": labels[:-1], "other clusters": labels + 9, "text": labels.astype(str)}
    if damage == "folder":
        kept.mkdir()
        monkeypatch.setattr("trainer.subclasses.make._FinishedClasses.keep", lambda *args: None)
    else:
        np.savez(kept, labels=wrong[damage], inertia=0.5)
    assert make_subclasses(config, data, CPU) == whole
