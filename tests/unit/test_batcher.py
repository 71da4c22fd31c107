"""Which clips form the next batch, by a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.engine.batcher import Batcher

DELAY = 1.0
ticks = st.integers(0, 6).map(lambda quarters: quarters / 4)  # exact in binary, so that "due now" can be hit
steps = st.lists(st.tuples(st.sampled_from(["add", "take", "take"]), ticks, st.booleans(), st.booleans()), max_size=60)


def filled(count: int, size: int = 4) -> Batcher[int]:
    batcher: Batcher[int] = Batcher(size=size, max_delay=DELAY)
    for item in range(count):
        batcher.add(item, now=10.0)
    return batcher


@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize("more", [True, False])
def test_a_full_batch_goes_at_once(idle: bool, more: bool) -> None:
    batcher = filled(9)
    assert batcher.take(10.0, idle=idle, more=more) == [0, 1, 2, 3]
    assert batcher.take(10.0, idle=idle, more=more) == [4, 5, 6, 7]
    assert len(batcher) == 1


@pytest.mark.parametrize(
    ("now", "idle", "more", "goes"),
    [
        (10.0, True, True, False),  # it may still fill
        (10.99, True, True, False),
        (11.0, True, True, True),  # the oldest clip has waited long enough
        (10.0, True, False, True),  # nothing more comes
        (10.0, False, False, False),  # a busy device loses nothing by waiting
        (99.0, False, True, False),
        (99.0, False, False, False),
    ],
)
def test_a_partial_batch_goes_to_an_idle_device_when_waiting_gains_nothing(
    now: float, idle: bool, more: bool, goes: bool
) -> None:
    assert filled(3).take(now, idle=idle, more=more) == ([0, 1, 2] if goes else [])


def test_the_oldest_clip_says_when_a_partial_batch_is_due() -> None:
    batcher = filled(1)
    batcher.add(1, now=10.5)
    assert batcher.due(10.25) == 0.75
    assert batcher.due(12.0) == 0
    batcher.take(12.0, idle=True, more=True)
    assert batcher.due(12.0) is None


def test_there_is_room_for_two_batches() -> None:
    assert [filled(count).room for count in (0, 1, 8, 9)] == [8, 7, 0, -1]


@pytest.mark.parametrize(
    ("clips", "runners", "sizes"),
    [
        (16, 2, [8, 4, 4]),
        (10, 2, [5, 4, 1]),
        (8, 2, [4, 4]),
        (8, 1, [8]),
        (9, 4, [4, 4, 1]),
        (3, 2, [3]),
    ],
)
def test_the_last_clips_are_shared_out_among_runners(clips: int, runners: int, sizes: list[int]) -> None:
    batcher: Batcher[int] = Batcher(size=8, max_delay=DELAY, runners=runners)
    for item in range(clips):
        batcher.add(item, now=10.0)
    taken = []
    while batch := batcher.take(10.0, idle=True, more=False):
        taken.append(len(batch))
    assert taken == sizes


def test_while_more_are_on_their_way_nothing_is_shared_out() -> None:
    batcher: Batcher[int] = Batcher(size=8, max_delay=DELAY, runners=2)
    for item in range(8):
        batcher.add(item, now=10.0)
    assert len(batcher.take(10.0, idle=True, more=True)) == 8


@pytest.mark.parametrize("more", [True, False])
def test_nothing_waits_for_nothing(more: bool) -> None:
    assert filled(0).take(99.0, idle=True, more=more) == []


@settings(deadline=None)
@given(st.integers(1, 5), steps)
def test_any_sequence(size: int, sequence: list[tuple[str, float, bool, bool]]) -> None:
    """Against a plain list: what goes, when, in which order; in the end every clip went exactly once."""
    batcher: Batcher[int] = Batcher(size=size, max_delay=DELAY)
    waiting: list[tuple[float, int]] = []
    taken: list[int] = []
    now, added = 0.0, 0
    for step, passed, idle, more in sequence:
        now += passed
        if step == "add":
            batcher.add(added, now)
            waiting.append((now, added))
            added += 1
        else:
            late = bool(waiting) and now - waiting[0][0] >= DELAY
            goes = len(waiting) >= size or (idle and (late or not more))
            expected, waiting = (waiting[:size], waiting[size:]) if goes else ([], waiting)
            batch = batcher.take(now, idle=idle, more=more)
            assert batch == [item for _, item in expected]
            taken += batch
        assert len(batcher) == len(waiting)
        assert batcher.room == 2 * size - len(waiting)
    while batch := batcher.take(now, idle=True, more=False):
        assert len(batch) <= size
        taken += batch
    assert taken == list(range(added))


@pytest.mark.parametrize(("size", "delay"), [(0, 1.0), (-1, 1.0), (1, -0.1)])
def test_sizes_and_delays_that_cannot_be(size: int, delay: float) -> None:
    with pytest.raises(ValueError, match=f"size {size} .* max_delay {delay}"):
        Batcher(size=size, max_delay=delay)
