"""Poisson arrivals, and the search for the largest rate that holds."""

from __future__ import annotations

import numpy as np
import pytest

from clipmux.bench.arrivals import largest_rate, poisson_arrivals


def test_arrivals_rise_at_the_rate_and_are_the_same_for_a_seed() -> None:
    arrivals = poisson_arrivals(50, 200, seed=3)
    assert len(arrivals) == 10_000
    gaps = np.diff(arrivals)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.05)  # an exponential's deviation is its mean
    assert np.array_equal(arrivals, poisson_arrivals(50, 200, seed=3))
    assert not np.array_equal(arrivals, poisson_arrivals(50, 200, seed=4))


def test_there_is_at_least_one_arrival() -> None:
    assert len(poisson_arrivals(0.1, 1, seed=0)) == 1


@pytest.mark.parametrize("limit", [3.0, 30.0, 77.7])
def test_bisection_finds_the_limit_from_below(limit: float) -> None:
    asked: list[float] = []

    def holds(rate: float) -> bool:
        asked.append(rate)
        return rate <= limit

    found = largest_rate(holds, 100, within=0.01)
    assert limit - 1 <= found <= limit
    assert len(asked) == len(set(asked)) <= 9


def test_bisection_asks_no_further_if_the_largest_rate_holds() -> None:
    asked: list[float] = []
    assert largest_rate(lambda rate: asked.append(rate) is None, 100) == 100
    assert asked == [100]


def test_bisection_gives_nothing_if_no_rate_holds() -> None:
    assert largest_rate(lambda _: False, 100) == 0
