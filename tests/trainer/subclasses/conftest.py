import pytest

from tests.trainer.subclasses.small_run import make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, ("a", "b"))


@pytest.fixture
def config(run):
    return run[0]


@pytest.fixture
def data(run):
    return run[1]
