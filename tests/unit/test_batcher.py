"""Which clips form the next batch, by a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.engine.batcher import Batcher

DELAY = 1.0
ticks = st.integers(0, 6).map(lambda quarters: quarters / 4)  # exact in binary, so that "due now" can be hit
steps = st.lists(st.tuples(st.sampled_from(["add", "take", "take"]), ticks, st.booleans(), st.booleans()), max_size=60)


def one_video(_: int) -> int:
    return 0


def filled(count: int, size: int = 4) -> Batcher[int]:
    batcher: Batcher[int] = Batcher(size=size, max_delay=DELAY, video_of=one_video)
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
    batcher: Batcher[int] = Batcher(size=8, max_delay=DELAY, video_of=one_video, runners=runners)
    for item in range(clips):
        batcher.add(item, now=10.0)
    taken = []
    while batch := batcher.take(10.0, idle=True, more=False):
        taken.append(len(batch))
    assert taken == sizes


def test_while_more_are_on_their_way_nothing_is_shared_out() -> None:
    batcher: Batcher[int] = Batcher(size=8, max_delay=DELAY, video_of=one_video, runners=2)
    for item in range(8):
        batcher.add(item, now=10.0)
    assert len(batcher.take(10.0, idle=True, more=True)) == 8


@pytest.mark.parametrize("more", [True, False])
def test_nothing_waits_for_nothing(more: bool) -> None:
    assert filled(0).take(99.0, idle=True, more=more) == []


def clips(videos: str, size: int = 4) -> Batcher[str]:
    """Clips of videos 0 to 9, named after those and after their places."""
    batcher: Batcher[str] = Batcher(size=size, max_delay=DELAY, video_of=lambda clip: int(clip[0]))
    for place, video in enumerate(videos):
        batcher.add(f"{video}{'abcdefghijklmnop'[place]}", now=10.0)
    return batcher


def test_clips_of_the_first_video_overtake_others_and_no_other_video_does() -> None:
    batcher = clips("1010")
    assert batcher.take(10.0, idle=True, more=True) == ["1a", "1c", "0b", "0d"]
    batcher = clips("21021021", size=3)
    assert [batcher.take(10.0, idle=True, more=True) for _ in range(2)] == [["2a", "2d", "2g"], ["1b", "0c", "1e"]]


def test_what_came_first_says_when_a_partial_batch_is_due_whatever_goes_before_it() -> None:
    batcher = clips("19")
    for place in range(4):
        batcher.add(f"1{place}", now=10.5)
    assert batcher.take(10.5, idle=True, more=True) == ["1a", "10", "11", "12"]
    assert batcher.due(10.5) == 0.5


@pytest.mark.parametrize(
    ("videos", "batches"),
    [
        ("0000001111111", ["0000", "00", "1111"]),  # its rest goes alone, and no other's does
        ("0000111112222", ["0000", "1111", "1222"]),  # there is no rest
        ("0001111122222", ["0001", "1111", "2222"]),  # the first batch waits for nobody's end
        ("0011001111111", ["0000", "1111", "1111"]),
        ("1111100022222", ["1111", "1", "0002"]),  # whichever comes first is the first
        ("0101010122222", ["0000", "1111", "2222"]),
        ("0112222222222", ["0112", "2222", "2222"]),
    ],
)
def test_the_rest_of_the_first_video_goes_alone(videos: str, batches: list[str]) -> None:
    batcher = clips(videos)
    taken = [batcher.take(10.0, idle=True, more=True) for _ in batches]
    assert ["".join(clip[0] for clip in batch) for batch in taken] == batches


def test_nothing_goes_alone_once_a_batch_has_mixed_videos_even_if_nothing_else_waited() -> None:
    batcher = clips("0001")
    assert batcher.take(10.0, idle=True, more=True) == ["0a", "0b", "0c", "1d"]
    for clip in ("0e", "1f", "1g", "1h"):
        batcher.add(clip, now=10.0)
    assert batcher.take(10.0, idle=True, more=True) == ["0e", "1f", "1g", "1h"]


@settings(deadline=None)
@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_any_videos(size: int, sequence: list[tuple[int, bool]]) -> None:
    """Every clip goes once, those of the first video before others, else as they came; one batch is short at most."""
    batcher: Batcher[tuple[int, int]] = Batcher(size=size, max_delay=DELAY, video_of=lambda clip: clip[0])
    waiting: list[tuple[int, int]] = []
    short = 0

    def expected(count: int) -> list[tuple[int, int]]:
        return sorted(waiting, key=lambda clip: (clip[0] != sequence[0][0], clip[1]))[:count]

    for place, (video, take) in enumerate(sequence):
        batcher.add((video, place), 0.0)
        waiting.append((video, place))
        full = len(waiting) >= size
        batch = batcher.take(0.0, idle=True, more=True) if take else []
        assert batch == expected(len(batch))
        assert bool(batch) == (take and full)
        if 0 < len(batch) < size:
            short += 1
            assert {video for video, _ in batch} == {sequence[0][0]}
        waiting = [clip for clip in waiting if clip not in batch]
    assert short <= 1
    while batch := batcher.take(0.0, idle=True, more=False):
        assert batch == expected(len(batch))
        waiting = [clip for clip in waiting if clip not in batch]
    assert not waiting


@settings(deadline=None)
@given(st.integers(1, 5), steps)
def test_any_sequence(size: int, sequence: list[tuple[str, float, bool, bool]]) -> None:
    """Against a plain list: what goes, when, in which order; in the end every clip went exactly once."""
    batcher: Batcher[int] = Batcher(size=size, max_delay=DELAY, video_of=one_video)
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
        Batcher(size=size, max_delay=delay, video_of=one_video)
