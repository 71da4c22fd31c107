"""Turns of streams: spread evenly over the stride, and found again."""

from __future__ import annotations

import math

import pytest

from clipmux.workers.turns import turn_of, until_turn


@pytest.mark.parametrize("count", [1, 2, 3, 8, 19, 40, 100])
def test_turns_are_spread_evenly_however_many_there_are(count: int) -> None:
    turns = sorted(turn_of(seat) for seat in range(count))
    gaps = [after - before for before, after in zip(turns, [*turns[1:], turns[0] + 1], strict=True)]
    assert sum(gaps) == pytest.approx(1)
    assert max(gaps) < 2.7 * min(gaps)


@pytest.mark.parametrize("now", [0.0, 3.21, 123456.789])
@pytest.mark.parametrize("turn", [0.0, 0.25, 0.999])
def test_a_turn_comes_once_in_a_stride(now: float, turn: float) -> None:
    wait = until_turn(now, turn, 0.64)
    assert 0 <= wait < 0.64
    assert math.cos(2 * math.pi * ((now + wait) / 0.64 - turn)) == pytest.approx(1)
    assert until_turn(now + wait + 0.1, turn, 0.64) == pytest.approx(0.54)
