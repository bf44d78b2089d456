"""Work on all cores."""

import os

import pytest

from utils.errors import UsageError
from utils.parallel import for_each


def test_results_come_in_order() -> None:
    assert for_each(abs, range(-9, 0), workers=1, label="") == list(range(9, 0, -1))


def test_nothing_to_do_is_no_work() -> None:
    assert for_each(abs, [], workers=4, label="") == []


def test_a_killed_worker_is_one_message_not_a_hang() -> None:
    with pytest.raises(UsageError, match=r"masks: a worker process was killed.*fewer processes"):
        for_each(os._exit, [1] * 64, workers=2, label="masks")
