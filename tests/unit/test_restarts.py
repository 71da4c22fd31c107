"""How often and how soon a dead process is replaced."""

from __future__ import annotations

from clipmux.engine.restarts import MOST, WITHIN_S, Restarts


def test_waits_grow_and_then_it_is_given_up() -> None:
    restarts = Restarts()
    waits = [restarts.wait(float(second), progressed=float(second)) for second in range(MOST + 1)]
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, None]


def test_old_deaths_are_forgotten_when_something_was_done_since() -> None:
    restarts = Restarts()
    for second in range(MOST):
        restarts.wait(float(second), progressed=0.0)
    later = WITHIN_S + 1.5  # the first two are older than that
    assert restarts.wait(later, progressed=later) == 0.5 * 2 ** (MOST - 3)


def test_deaths_far_apart_count_while_nothing_gets_done() -> None:
    restarts = Restarts()
    waits = [restarts.wait(100.0 + 2 * WITHIN_S * death, progressed=50.0) for death in range(MOST + 1)]
    assert waits[-1] is None
    assert None not in waits[:-1]
