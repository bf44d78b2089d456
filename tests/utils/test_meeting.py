from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from utils.errors import UsageError
from utils.meeting import agree


def agree_all(*commands: dict) -> list[str]:
    """What each rank says about the commands of all."""
    store = HashStore()

    def of_rank(number: int) -> str:
        try:
            agree(store, number, len(commands), commands[number])
        except UsageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        return list(pool.map(of_rank, range(len(commands))))


def test_ranks_with_one_command_begin():
    assert agree_all({"stage": "train", "random_seed": 42}, {"stage": "train", "random_seed": 42}) == ["", ""]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"random_seed": 7, "epochs": 1}, "random_seed: 42 → 7."),
        ({"random_seed": 42, "epochs": 4}, "epochs: 1 → 4."),
        ({"random_seed": 42}, "epochs: 1 → None."),
    ],
)
def test_ranks_with_different_commands_are_all_refused_with_the_key_and_the_rank(other, named):
    messages = agree_all(same := {"random_seed": 42, "epochs": 1}, same, other)
    assert len(set(messages)) == 1
    assert messages[0].startswith("rank 2 was started by another command")
    assert named in messages[0]
