"""Which videos are handed out again, and as which attempt."""

from __future__ import annotations

from pathlib import Path

from clipmux.engine.handouts import ATTEMPTS, Handouts
from clipmux.workers.sources import Video


def handed_out(count: int) -> Handouts:
    handouts = Handouts()
    for number in range(count):
        assert handouts.add(Video(f"{number}", Path(f"{number}.mp4"), "file")).number == number
    return handouts


def again(handouts: Handouts) -> list[tuple[int, int]]:
    """Numbers and attempts of all that are to be handed out again, as they are taken."""
    taken = []
    while (handout := handouts.take_again()) is not None:
        taken.append((handout.number, handout.attempt))
    return taken


def test_what_was_lost_goes_out_again_in_order_as_a_new_attempt() -> None:
    handouts = handed_out(4)
    handouts.lost([3, 1])
    assert handouts.waiting
    assert again(handouts) == [(1, 2), (3, 2)]
    assert not handouts.waiting


def test_what_waits_to_go_out_again_is_not_lost_twice() -> None:
    handouts = handed_out(2)
    handouts.lost([0])
    handouts.lost_all()
    assert again(handouts) == [(0, 2), (1, 2)]
    handouts.lost_all()
    assert again(handouts) == [(0, 3), (1, 3)]


def test_an_outcome_counts_once_and_ends_the_wait() -> None:
    handouts = handed_out(2)
    handouts.lost_all()
    assert handouts.done(0)
    assert not handouts.done(0)
    assert not handouts.done(7)
    handouts.lost([0])
    assert again(handouts) == [(1, 2)]
    assert handouts.done(1)
    assert len(handouts) == 0
    assert handouts.handed == 2


def test_a_video_that_brings_down_decoders_is_given_up_and_one_that_is_lost_never() -> None:
    handouts = handed_out(1)
    for fault in range(2, ATTEMPTS + 1):
        assert handouts.fault(0) is None
        assert again(handouts) == [(0, fault)]
    last = handouts.fault(0)
    assert last is not None
    assert (last.number, last.attempt) == (0, ATTEMPTS)
    assert not handouts.waiting
    assert len(handouts) == 1  # it has no outcome before that is written
    handouts.lost_all()
    assert again(handouts) == [(0, ATTEMPTS + 1)]
    assert handouts.fault(0) is not None
    innocent = handed_out(1)
    for _ in range(3 * ATTEMPTS):
        innocent.lost_all()
        assert innocent.take_again() is not None
    assert innocent.fault(0) is None
