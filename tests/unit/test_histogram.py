"""Percentiles to 2%, in memory that does not grow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.engine.histogram import Histogram


def histogram(durations: list[float]) -> Histogram:
    counted = Histogram()
    for seconds in durations:
        counted.add(seconds)
    return counted


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1), st.sampled_from([0, 1, 50, 90, 99, 100]))
def test_percentiles_are_right_within_two_percent(durations: list[float], percent: int) -> None:
    counted = histogram(durations)
    exact = sorted(durations)[max(0, math.ceil(len(durations) * percent / 100) - 1)]
    assert counted.count == len(durations)
    assert counted.percentile(percent) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9])
def test_below_a_microsecond_counts_as_one(seconds: float) -> None:
    assert histogram([seconds]).percentile(50) == pytest.approx(1e-6)


def test_no_durations_have_no_percentile() -> None:
    assert Histogram().percentile(50) is None


def test_percentiles_of_many() -> None:
    counted = histogram([number / 1000 for number in range(1, 20_001)])
    assert [counted.percentile(p) for p in (50, 90, 99)] == pytest.approx([10, 18, 19.8], rel=0.02)


def test_buckets_rise_and_hold_everything() -> None:
    counted = histogram([0.1, 0.1, 0.2])
    (first, two), (second, one) = counted.buckets()
    assert (two, one) == (2, 1)
    assert 0.1 <= first <= 0.102
    assert 0.2 <= second <= 0.204
