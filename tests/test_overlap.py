"""What the downlink pays for because a client keeps a coordinate."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulewise.errors import ArgumentError
from joulewise.overlap import alone

some = settings(max_examples=50, deadline=None)


def test_nobody_else_keeps_it_as_often_as_all_ways_in_which_others_may_say():
    densities = np.array([[0.3, 1.0], [0.01, 0.5], [0.8, 1.0], [0.0, 0.2]])
    found = alone(densities)
    for client, tensor in product(range(4), range(2)):
        chance = 0.0
        for kept in product([False, True], repeat=4):
            if not any(each for other, each in enumerate(kept) if other != client):
                chance += np.prod([q if each else 1 - q for q, each in zip(densities[:, tensor], kept, strict=True)])
        assert found[client, tensor] == pytest.approx(chance, abs=1e-15)


@some
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_it_is_what_the_union_of_all_masks_gains_from_a_client_that_keeps_more(seed, clients):
    q = np.random.default_rng(seed).uniform(0, 0.9, (clients, 1))
    for client in range(clients):
        more = q.copy()
        more[client] += 1e-6
        union = [1 - np.prod(1 - each) for each in (q, more)]
        assert (union[1] - union[0]) / 1e-6 == pytest.approx(float(alone(q)[client, 0]), rel=1e-4, abs=1e-8)


@some
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(0, 3), st.floats(0.01, 3))
def test_at_a_price_a_coordinate_goes_out_where_what_clients_gain_pays_for_its_downlink(seed, clients, down, price):
    rng = np.random.default_rng(seed)
    values, costs = rng.exponential(1.0, clients), rng.exponential(1.0, clients)
    best = max(
        sum(values[k] - price * costs[k] for k in range(clients) if kept[k]) - price * down * any(kept)
        for kept in product([False, True], repeat=clients)
    )
    assert best == pytest.approx(max(0.0, float(np.maximum(0.0, values - price * costs).sum()) - price * down))


def test_densities_out_of_range_are_refused():
    for wrong in ([[1.1]], [[-0.1]], [[np.nan]], [0.5]):
        with pytest.raises(ArgumentError, match="from 0 to 1"):
            alone(wrong)
    assert alone(np.zeros((1, 3))).tolist() == [[1.0, 1.0, 1.0]]
    assert alone(np.zeros((0, 3))).shape == (0, 3)
