import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders.geometry import Geometry
from dataloaders.images import read_image
from dataloaders.loaders import DrawSampler, training_loader
from dataloaders.reading import IGNORE
from dataloaders.sets.description import LazySamples, Sample
from dataloaders.streams import EvaluationStream, UnlabelledStream
from tests.dataloaders.miniature import GEOMETRY, data_of, labelled_stream, same_items, write_image, write_mask
from utils.errors import UsageError

PLAIN = Geometry(crop_size=8, base_size=8, scales=None, flip=False, rotate=False, blur=False)


def unlabelled_stream(samples, seed=0):
    return UnlabelledStream(data_of(unlabelled=samples), GEOMETRY, seed=seed)


def test_item_follows_from_seed_and_draw_alone(samples):
    for make in (labelled_stream, unlabelled_stream):
        stream = make(samples)
        item = stream[2, 11]
        assert same_items(item, make(samples)[2, 11])
        assert not same_items(item, stream[2, 12])
        assert not same_items(item, make(samples, seed=1)[2, 11])


@pytest.fixture
def with_bad_ones(samples):
    """The samples, of which the second has a truncated image and the third a mask of another size."""
    samples[1].image.write_bytes(samples[1].image.read_bytes()[:-20])
    write_mask(samples[2].label, 1, (5, 5))
    return samples


def streams(samples, **more):
    return labelled_stream(samples, **more), UnlabelledStream(data_of(unlabelled=samples), GEOMETRY, seed=0, **more)


def test_bad_sample_is_an_error_unless_it_may_be_skipped(with_bad_ones):
    for stream in streams(with_bad_ones):
        with pytest.raises(UsageError, match=r"s1\.png: cannot be read as an image"):
            stream[1, 0]


def test_bad_sample_is_replaced_by_a_good_one_and_named(with_bad_ones):
    for stream in streams(with_bad_ones, skip_bad=True):
        items = [stream[1, draw] for draw in range(30)]
        assert {item["id"] for item in items} >= {"s0", "s3", "s4", "s5"}  # not always the same one
        assert "s1" not in {item["id"] for item in items}
        for draw, item in enumerate(items):
            assert "s1.png: cannot be read" in item["bad"].splitlines()[0]
            good = stream[int(item["id"][1:]), draw]  # what it would be if it had been drawn itself
            assert good["bad"] == ""
            assert torch.equal(good["image"], item["image"])


def test_replacement_follows_from_seed_and_draw_alone(with_bad_ones):
    for make in (lambda: streams(with_bad_ones, skip_bad=True)[0], lambda: streams(with_bad_ones, skip_bad=True)[1]):
        assert all(same_items(make()[1, draw], make()[1, draw]) for draw in range(5))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache_bytes", [0, 5_000, 10**6])  # nothing, two samples, all of them
def test_items_are_the_same_however_much_is_kept_in_memory(samples, num_workers, cache_bytes):
    def items(**more):
        stream = labelled_stream(samples, PLAIN, **more)
        sampler = DrawSampler(len(samples), 2, 12, seed=0, stream=0)
        return list(training_loader(stream, sampler, num_workers, pin_memory=False))

    for kept, read in zip(items(cache_bytes=cache_bytes), items(), strict=True):
        assert same_items(kept, read)


def test_kept_samples_are_not_read_again(samples):
    stream = labelled_stream(samples, cache_bytes=10**6)
    items = [stream[index, 6 + index] for index in range(6)]
    for sample in samples:
        sample.image.unlink()
    assert all(same_items(stream[index, 6 + index], item) for index, item in enumerate(items))


def test_only_what_is_read_can_be_bad(with_bad_ones):
    labelled, unlabelled = streams(with_bad_ones, skip_bad=True)
    assert "s2.png: is 5 x 5 pixels" in labelled[2, 0]["bad"]
    assert unlabelled[2, 0]["bad"] == ""


def test_stream_in_which_all_are_bad_is_an_error(with_bad_ones):
    with pytest.raises(UsageError, match=r"none of the 2 images of this stream can be used; the first: .*s1\.png"):
        labelled_stream(with_bad_ones[1:3], skip_bad=True)[0, 0]


def test_missing_subclass_map_is_never_skipped(samples, tmp_path):
    stream = labelled_stream(samples, skip_bad=True, subclass_dir=tmp_path / "none", n_subclasses=3)
    with pytest.raises(UsageError, match="subclass map is missing"):
        stream[0, 0]


def test_bad_sample_of_the_evaluation_is_always_an_error(with_bad_ones):
    stream = EvaluationStream(data_of(), with_bad_ones)
    with pytest.raises(UsageError, match=r"s2\.png: is 5 x 5 pixels"):
        stream[2]


@pytest.mark.parametrize("size", [(1, 30), (30, 1), (1, 1), (3, 5)])
def test_image_of_one_pixel_in_height_or_width_is_trained_and_evaluated_on(tmp_path, size):
    sample = Sample("s", write_image(tmp_path / "s.png", 7, size), write_mask(tmp_path / "m.png", 1, size))
    rotated = Geometry(crop_size=16, base_size=20, scales=(0.5, 2.0), flip=True, rotate=True, blur=True)
    item = labelled_stream((sample,), rotated)[0, 0]
    assert item["image"].shape == (3, 16, 16)
    assert (item["target"] == 1).any()
    item = EvaluationStream(data_of(), (sample,))[0]
    assert all(side % 8 == 0 for side in item["image"].shape[1:])
    assert (item["image"] == 7).all()
    assert item["target"].shape == size


def test_labelled_item_has_image_target_and_what_the_file_calls_ignored(samples):
    values = np.asarray(Image.open(samples[1].label)).copy()
    values[:3] = 255
    write_mask(samples[1].label, values)
    item = labelled_stream(samples, PLAIN)[1, 0]
    assert item.keys() == {"id", "image", "target", "bad"}
    assert item["id"] == "s1"
    assert (item["image"].dtype, item["target"].dtype) == (torch.uint8, torch.int16)
    whole = labelled_stream(samples, Geometry(24, 24, None, False, False, False))[1, 0]
    assert np.array_equal(whole["image"][:, :20].permute(1, 2, 0), read_image(samples[1].image))
    assert np.array_equal(whole["target"][:20], np.where(values == 255, IGNORE, values.astype(int)))
    assert (whole["target"][20:] == IGNORE).all()


def test_subclass_map_goes_the_way_of_the_target(samples, tmp_path):
    for sample in samples:  # subclass 2 c + 1 of class c
        write_mask(tmp_path / "maps" / sample.label.name, np.asarray(Image.open(sample.label)) * 2 + 1)
    stream = labelled_stream(samples, subclass_dir=tmp_path / "maps", n_subclasses=6)
    for draw in range(10):
        item = stream[0, draw]
        inside = item["target"] != IGNORE
        assert torch.equal(item["subclass"], torch.where(inside, 2 * item["target"] + 1, IGNORE))
    item = labelled_stream(samples)[0, 3]
    assert torch.equal(item["image"], stream[0, 3]["image"])


def test_subclass_map_named_after_the_image_is_read_where_none_is_named_after_the_mask(tmp_path):
    image = write_image(tmp_path / "ulm_0_leftImg8bit.png", 7, (16, 16))
    label = write_mask(tmp_path / "ulm_0_gtFine_labelTrainIds.png", 1, (16, 16))
    write_mask(tmp_path / "maps" / image.name, 3, (16, 16))
    found = []
    for _ in range(2):
        stream = labelled_stream((Sample("s", image, label),), PLAIN, subclass_dir=tmp_path / "maps", n_subclasses=6)
        found.append(stream[0, 0]["subclass"].unique().tolist())
        write_mask(tmp_path / "maps" / label.name, 5, (16, 16))
    assert found == [[3], [5]]


def test_only_a_stream_with_jitter_draws_colours(samples):
    assert "photometry" not in labelled_stream(samples)[0, 0]
    photometry = labelled_stream(samples, jitter=True)[0, 0]["photometry"]
    assert photometry[:3].tolist() == [0, 1, 0]
    assert torch.equal(labelled_stream(samples)[0, 0]["image"], labelled_stream(samples, jitter=True)[0, 0]["image"])


def test_unlabelled_stream_opens_no_mask(samples):
    for sample in samples:
        sample.label.unlink()
    for unlabelled in (samples, tuple(Sample(sample.id, sample.image) for sample in samples)):
        item = UnlabelledStream(data_of(unlabelled=unlabelled), GEOMETRY, seed=0)[3, 0]
        assert item.keys() == {"id", "image", "photometry", "bad"}
        assert item["image"].shape == (3, 16, 16)


def test_unlabelled_stream_draws_the_strong_view(samples):
    stream = UnlabelledStream(data_of(unlabelled=samples), PLAIN, seed=0)
    drawn = torch.stack([stream[0, draw]["photometry"] for draw in range(200)]).flatten(0, 1)
    assert drawn[:, 0].mean() == pytest.approx(0.5, abs=0.12)
    assert drawn[:, 2].mean() == pytest.approx(0.2, abs=0.12)


def test_unlabelled_stream_draws_several_views_with_boxes_and_marks_padding(samples):
    settings = {"strong_views": 2, "unimatch": True, "cutmix": 1.0, "mark_padding": True}
    plain = UnlabelledStream(data_of(unlabelled=samples), GEOMETRY, seed=0)[2, 5]
    item = UnlabelledStream(data_of(unlabelled=samples), GEOMETRY, seed=0, **settings)[2, 5]
    assert torch.equal(item["image"], plain["image"])
    assert (item["photometry"].shape, item["box"].shape) == ((2, 9), (2, 4))
    assert not torch.equal(item["photometry"][0], item["photometry"][1])
    large = replace(GEOMETRY, crop_size=40, scales=None, flip=False)
    item = UnlabelledStream(data_of(unlabelled=samples), large, seed=0, **settings)[2, 5]
    assert not item["padding"][:20, :24].any()
    assert item["padding"][20:].all()
    assert item["padding"][:, 24:].all()


def test_mask_of_another_size_than_its_image_is_named_with_both(samples, tmp_path):
    write_mask(samples[0].label, 0, size=(10, 24))
    for stream, key in ((labelled_stream(samples), (0, 0)),
                        (EvaluationStream(data_of(), samples), 0)):  # fmt: skip
        with pytest.raises(UsageError) as error:
            stream[key]
        for part in (str(samples[0].label), "24 x 10", str(samples[0].image), "24 x 20"):
            assert part in str(error.value)
    write_mask(tmp_path / "maps" / "s1.png", 0, size=(10, 24))
    with pytest.raises(UsageError, match="24 x 10"):
        labelled_stream(samples, subclass_dir=tmp_path / "maps", n_subclasses=2)[1, 0]


@pytest.mark.parametrize("size", [(20, 24), (24, 24), (17, 9), (1, 5), (3, 8)])
def test_evaluation_image_is_reflected_at_the_bottom_and_the_right_to_multiples_of_8(tmp_path, size):
    values = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    sample = Sample("a", write_image(tmp_path / "a.png", values), write_mask(tmp_path / "m.png", 1, size=size))
    item = EvaluationStream(data_of(), (sample,))[0]
    image = item["image"].permute(1, 2, 0).numpy()
    height, width = (-(-side // 8) * 8 for side in size)
    assert image.shape == (height, width, 3)
    assert np.array_equal(image[: size[0], : size[1]], values)
    if size[0] > 8 and size[0] % 8:
        assert np.array_equal(image[size[0], : size[1]], values[-2])
    if size[1] > 8 and size[1] % 8:
        assert np.array_equal(image[: size[0], size[1]], values[:, -2])
    assert item["target"].shape == size  # the target is not padded


def test_streams_of_samples_that_are_looked_up_reach_a_process_that_is_spawned(samples):
    looked_up = LazySamples(lambda: samples)
    data = replace(data_of(), labelled=looked_up, unlabelled=looked_up)
    for stream in (UnlabelledStream(data, GEOMETRY, seed=0), EvaluationStream(data, data.labelled)):
        assert len(pickle.loads(pickle.dumps(stream))) == len(samples)
