import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import eye_array, kron, vstack

from trainer.balanced_kmeans.assignment import Exchange, desired_sizes, exchange, follow
from trainer.balanced_kmeans.descent import Descent
from trainer.balanced_kmeans.distances import Distances
from trainer.balanced_kmeans.samples import Samples


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_exchange_finds_the_optimum_of_the_linear_program(seed, whole_numbers):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    k = int(rng.integers(1, n + 1))
    cost = rng.integers(0, 5, (n, k)).astype(float) if whole_numbers else rng.random((n, k))
    tight = bool(rng.integers(2))
    low = np.full(k, n // k if tight else rng.integers(0, n // k + 1))
    high = np.full(k, -(-n // k) if tight else rng.integers(-(-n // k), n + 1))
    prices = 0.3 * rng.normal(size=k) if tight else np.zeros(k)
    labels = (cost + prices).argmin(1)
    counts = np.bincount(labels, minlength=k)
    state = Exchange(cost, labels, counts, desired_sizes(prices, counts, low, high, n), prices, low, high)
    assert exchange(state)
    assert np.array_equal(np.bincount(state.labels, minlength=k), state.counts)
    assert np.all((low <= state.counts) & (state.counts <= high))
    sizes = kron(np.ones((1, n)), eye_array(k))
    program = linprog(
        cost.ravel(),
        A_ub=vstack([sizes, -sizes]),
        b_ub=np.concatenate([high, -low]),
        A_eq=kron(eye_array(n), np.ones((1, k))),
        b_eq=np.ones(n),
    )
    assert cost[np.arange(n), state.labels].sum() == pytest.approx(program.fun, abs=1e-8)
    supported = (cost + state.prices)[np.arange(n), state.labels]
    assert np.all(supported <= (cost + state.prices).min(1) + 1e-9)


def test_prices_follow_the_centres_so_that_fewer_samples_are_too_many():
    rng = np.random.default_rng(0)
    modes = rng.normal(size=(6, 16))
    samples = Samples(modes[rng.integers(6, size=3000)] + 0.6 * rng.normal(size=(3000, 16)), torch.device("cpu"), None)
    centers, prices = samples.take(slice(0, 10)), torch.zeros(10, dtype=torch.float64)
    sizes = torch.full_like(prices, 300.0)
    labels = torch.zeros(3000, dtype=torch.int64)
    descent = Descent(Distances(samples, centers), prices, 1.0, sizes, sizes, labels)
    assert descent.balance(60, 0.01).excess_share <= 0.01
    balanced = descent.prices
    descent.move()
    assert descent.look(descent.prices).excess_share < 0.7 * descent.look(balanced).excess_share


def test_prices_stay_where_the_sizes_are_open():
    prices = torch.tensor([0.0, 1.0])
    assert torch.equal(follow(prices, torch.ones(2, 3), torch.zeros(2), torch.ones(2)), prices)
