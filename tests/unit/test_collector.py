"""Which videos a collector takes for finished."""

from __future__ import annotations

from clipmux.workers.collector import Finished


def test_numbers_are_finished_in_any_order() -> None:
    finished = Finished()
    for number in (2, 0, 5, 1):
        finished.add(number)
    assert [number for number in range(7) if number in finished] == [0, 1, 2, 5]


def test_a_collector_in_the_place_of_another_knows_what_is_finished() -> None:
    finished = Finished(6, [1, 4])
    assert [number for number in range(8) if number in finished] == [0, 2, 3, 5]
    finished.add(1)
    finished.add(6)
    assert [number for number in range(8) if number in finished] == [0, 1, 2, 3, 5, 6]
    assert 9 in Finished(10, [])
    assert 10 not in Finished(10, [])
