import pytest
import torch

from dataloaders.images import read_image
from dataloaders.loaders import DrawSampler, SameSizeSampler, evaluation_loader, training_loader
from dataloaders.sets.description import Sample
from dataloaders.streams import EvaluationStream
from tests.dataloaders.miniature import data_of, labelled_stream, same_items, write_image, write_mask
from utils.errors import UsageError


def batches(n_samples=7, batch_size=4, iterations=12, **more):
    return list(DrawSampler(n_samples, batch_size, iterations, **{"seed": 0, "stream": 0, **more}))


def test_two_processes_together_draw_what_one_draws():
    whole = batches()
    shares = [batches(rank=rank, world_size=2) for rank in (0, 1)]
    assert all(len(batch) == 2 for share in shares for batch in share)
    assert [first + second for first, second in zip(*shares, strict=True)] == whole


def test_run_that_goes_on_draws_what_an_unbroken_one_would_have_drawn():
    for rank, world_size in ((0, 1), (1, 2)):
        whole = batches(rank=rank, world_size=world_size)
        for start in (0, 1, 5, 11, 12):
            assert batches(rank=rank, world_size=world_size, start=start) == whole[start:]
    sampler = DrawSampler(7, 4, 12, seed=0, stream=0, start=5)
    assert len(sampler) == len(list(sampler)) == 7


@pytest.mark.parametrize(("n_samples", "batch_size"), [(7, 4), (3, 8), (1, 2), (8, 4)])
def test_every_n_draws_are_a_permutation_of_the_n_images(n_samples, batch_size):
    drawn = [pair for batch in batches(n_samples, batch_size, iterations=20) for pair in batch]
    assert [draw for _, draw in drawn] == list(range(20 * batch_size))
    indices = [index for index, _ in drawn]
    for first in range(0, len(indices) - n_samples + 1, n_samples):
        assert sorted(indices[first : first + n_samples]) == list(range(n_samples))


def test_order_changes_from_turn_to_turn_with_the_seed_and_with_the_stream():
    def order(**more):
        return [index for batch in batches(20, 4, iterations=10, **more) for index, _ in batch]

    plain = order()
    assert plain[:20] != plain[20:]
    assert plain == order()
    assert plain != order(seed=1)
    assert plain != order(stream=1)


def test_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(UsageError, match="batch_size 4 .* 3 processes"):
        DrawSampler(7, 4, 12, seed=0, stream=0, world_size=3)


def test_stream_without_images_is_refused():
    with pytest.raises(UsageError, match="no unlabelled image is left"):
        DrawSampler(0, 4, 12, seed=0, stream=1)


def test_loaders_of_two_processes_give_the_batch_of_one(samples):
    def images(**more):
        sampler = DrawSampler(6, 4, 3, seed=0, stream=0, **more)
        return [batch["image"] for batch in training_loader(labelled_stream(samples), sampler, 0, pin_memory=False)]

    whole, first, second = images(), images(rank=0, world_size=2), images(rank=1, world_size=2)
    assert len(whole) == 3
    for together, *shares in zip(whole, first, second, strict=True):
        assert torch.equal(together, torch.cat(shares))


@pytest.fixture
def of_sizes(tmp_path):
    """Ten images of three padded sizes, and their masks."""
    sizes = [(20, 24), (9, 16), (17, 17), (24, 24), (16, 9), (16, 16), (20, 20), (10, 10), (1, 8), (24, 17)]
    return tuple(
        Sample(f"{number}", write_image(tmp_path / f"{number}.png", 50, size),
               write_mask(tmp_path / f"m{number}.png", 0, size))
        for number, size in enumerate(sizes)
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_batches_of_evaluation_hold_images_of_one_padded_size(of_sizes, batch_size):
    loader = evaluation_loader(EvaluationStream(data_of(), of_sizes), batch_size, 0)
    seen = []
    for batch in loader:  # stacking would fail on images of several sizes
        assert len(batch["samples"]) == len(batch["images"]) == len(batch["targets"]) <= batch_size
        for sample, target in zip(batch["samples"], batch["targets"], strict=True):
            assert target.shape == read_image(sample.image).shape[:2]
            seen.append(sample.id)
    assert sorted(seen) == [str(number) for number in range(10)]
    if batch_size == 16:
        assert len(loader) == 3


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("world_size", [2, 3, 20])
def test_processes_share_the_evaluation_so_that_no_image_is_seen_twice(of_sizes, batch_size, world_size):
    shares = [list(SameSizeSampler(of_sizes, batch_size, rank=r, world_size=world_size)) for r in range(world_size)]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def message_of(loader) -> str:
    batches = iter(loader)
    with pytest.raises(UsageError) as error:
        list(batches)
    batches.close()
    return str(error.value)


def test_user_gets_the_message_of_a_loading_process_alone(samples):
    samples[4].label.unlink()
    training = training_loader(labelled_stream(samples), DrawSampler(6, 2, 3, seed=0, stream=0), 1, pin_memory=False)
    evaluation = evaluation_loader(EvaluationStream(data_of(), samples), 1, 1)
    for loader in (training, evaluation):
        message = message_of(loader)
        assert message.startswith(f"{samples[4].label}: cannot be read as a mask")
        assert "Traceback" not in message


def test_loading_processes_give_what_this_one_would(samples):
    def load(num_workers):
        sampler = DrawSampler(6, 2, 4, seed=0, stream=0)
        return list(training_loader(labelled_stream(samples), sampler, num_workers, pin_memory=False))

    for here, there in zip(load(0), load(2), strict=True):
        assert same_items(here, there)
