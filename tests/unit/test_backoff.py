"""Waits between tries, with chance that the test knows."""

from __future__ import annotations

from random import Random

from clipmux.engine.backoff import Backoff


def test_waits_double_up_to_a_bound_and_begin_anew_after_success() -> None:
    backoff = Backoff(first=0.5, most=4.0, random=Random(1))  # noqa: S311
    waits = [backoff.next() for _ in range(60)]
    for wait, most in zip(waits, [0.5, 1, 2, 4, 4, *[4.0] * 55], strict=True):
        assert most / 2 <= wait <= most
    assert len(set(waits[3:])) == 57  # those who failed together do not return together
    backoff.reset()
    assert backoff.next() <= 0.5
