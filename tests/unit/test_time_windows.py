"""Which frames of a stream form which clip, by times that the test makes up."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.workers.time_windows import GAP_S, TimedWindow, TimeWindows
from clipmux.workers.windows import windows

STEP = 1 / 25


def cut(times: list[float], *, length: int = 4, stride_s: float = 4 * STEP, rate: float = 25.0, end: bool = False):
    """The windows of frames at these times; a frame is its own time."""
    cutter: TimeWindows[float, float] = TimeWindows(length=length, rate=rate, stride_s=stride_s, keep=float)
    found: list[TimedWindow[float]] = []
    for time in times:
        found += cutter.add(time, time)
    return found + (cutter.end() if end else [])


def ms(windows: list[TimedWindow[float]]) -> list[list[int]]:
    return [[round(1000 * frame) for frame in window.frames] for window in windows]


def test_the_worked_example() -> None:
    times = [number / 30 for number in range(7)]
    assert ms(cut(times, length=6)) == [[0, 33, 67, 133, 167, 200]]


def test_a_camera_at_the_grids_rate_gives_every_frame_once() -> None:
    assert ms(cut([100 + number * STEP for number in range(9)])) == [
        [100_000, 100_040, 100_080, 100_120],
        [100_160, 100_200, 100_240, 100_280],
    ]


def test_a_slower_cameras_frames_are_repeated() -> None:
    assert ms(cut([0, 0.083, 0.167, 0.25, 0.333], length=8, stride_s=1)) == [[0, 0, 83, 83, 167, 167, 250, 250]]


def test_a_faster_cameras_frames_are_left_out_and_never_kept() -> None:
    kept: list[float] = []

    def keep(frame: float) -> float:
        kept.append(frame)
        return frame

    cutter: TimeWindows[float, float] = TimeWindows(length=4, rate=25, stride_s=4 * STEP, keep=keep)
    found = [window for number in range(20) for window in cutter.add(number / 100, number / 100)]
    assert ms(found) == [[0, 40, 80, 120]]
    assert [round(1000 * frame) for frame in kept] == [0, 40, 80, 120, 160]


def test_a_clip_is_complete_with_its_last_frame_and_not_later() -> None:
    cutter: TimeWindows[int, int] = TimeWindows(length=4, rate=25, stride_s=4 * STEP, keep=int)
    assert [len(cutter.add(number, number * STEP)) for number in range(8)] == [0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("after", [2 * STEP + GAP_S + 0.001, 1000.0, STEP, -5.0])
def test_a_clip_never_spans_a_gap_or_a_step_back(after: float) -> None:
    late = [after + number * STEP for number in range(4)]
    (window,) = cut([0, STEP, 2 * STEP, *late])
    assert list(window.frames) == late
    assert window.seconds == pytest.approx((after, after + 4 * STEP))
    assert window.start == 0


def test_a_step_that_is_no_gap_repeats_what_was_there() -> None:
    assert ms(cut([0, 0.04, 0.49, 0.53], length=14, stride_s=1)) == [[0] + [40] * 6 + [490] * 6 + [530]]


def test_the_same_time_twice_counts_once() -> None:
    assert ms(cut([0, 0, STEP, STEP, 2 * STEP, 3 * STEP])) == [[0, 40, 80, 120]]


def test_cutting_forgets_what_had_begun() -> None:
    cutter: TimeWindows[int, int] = TimeWindows(length=4, rate=25, stride_s=4 * STEP, keep=int)
    for number in range(3):
        cutter.add(number, number * STEP)
    cutter.cut()
    found = [window for number in range(3, 9) for window in cutter.add(number, number * STEP)]
    assert [window.frames for window in found] == [(3, 4, 5, 6)]


def test_clips_overlap_or_leave_frames_between_as_the_stride_says() -> None:
    times = [number * STEP for number in range(12)]
    assert [window[0] for window in ms(cut(times, stride_s=2 * STEP))] == [0, 80, 160, 240, 320]
    assert [window[0] for window in ms(cut(times, stride_s=6 * STEP))] == [0, 240]


@settings(deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 8),
    st.integers(1, 12),
    st.sampled_from([10.0, 12.5, 23.976, 25.0, 29.97, 30.0, 60.0]),
    st.floats(-1000, 1000),
    st.sampled_from([1, 90_000, 12_800]),
)
def test_at_the_grids_own_rate_clips_are_those_of_a_run(
    count: int, length: int, stride: int, rate: float, first: float, base: int
) -> None:
    """Whatever the container's time base rounds times to, and wherever they begin."""
    times = [first + (number / rate if base == 1 else round(number / rate * base) / base) for number in range(count)]
    numbered = {time: number for number, time in enumerate(times)}
    found = cut(times, length=length, stride_s=stride / rate, rate=rate, end=True)
    expected = list(windows(times, length=length, stride=stride, keep=float))
    assert [[numbered[frame] for frame in window.frames] for window in found] == [
        [numbered[frame] for frame in window.frames] for window in expected
    ]
    assert [(window.start, window.covered) for window in found] == [(w.start, w.covered) for w in expected]


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 0.2), min_size=2, max_size=80), st.sampled_from([5.0, 12.0, 25.0, 60.0]))
def test_any_camera_gives_clips_in_order_of_frames_that_are_near(spacings: list[float], rate: float) -> None:
    times = list(itertools.accumulate(spacings))
    found = cut(times, length=3, stride_s=3 / rate, rate=rate)
    frames = [frame for window in found for frame in window.frames]
    assert frames == sorted(frames)
    widest = max(b - a for a, b in itertools.pairwise(times))
    for number, frame in enumerate(frames):
        assert abs(frame - (times[0] + number / rate)) <= widest / 2 + 1e-9
    reached = int((times[-1] - times[0]) * rate + 1e-9) + 1
    assert reached - 1 <= len(frames) + 2 and len(found) <= (reached + 1 + widest * rate) // 3  # noqa: PT018


@pytest.mark.parametrize(
    "wrong", [{"length": 0}, {"rate": 0.0}, {"rate": float("nan")}, {"stride_s": 0.0}, {"gap_s": 0.0}]
)
def test_what_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        TimeWindows(**{"length": 4, "rate": 25.0, "stride_s": 1.0, "keep": float, **wrong})


@pytest.mark.parametrize("fps", [12, 25, 30, 60])
def test_it_is_known_from_when_on_a_frame_completes_the_next_clip(fps: int) -> None:
    cutter: TimeWindows[int, int] = TimeWindows(length=4, rate=25, stride_s=3 * STEP, keep=int)
    assert cutter.completes_at is None
    for number in range(200):
        needed = cutter.completes_at
        windows = cutter.add(number, number / fps)
        if number > 3:
            assert needed is not None
            assert bool(windows) == (number / fps >= needed - 1e-9)


def test_the_second_clip_may_begin_sooner_and_the_others_follow_at_the_stride() -> None:
    asked = iter((0.05, 9.0, 0.0))
    cutter: TimeWindows[int, int] = TimeWindows(
        length=4, rate=25, stride_s=4 * STEP, keep=int, first_stride_s=lambda: next(asked)
    )
    for starts in ([0, 1, 5, 9], [0, 4, 8, 12], [0, 1, 5, 9]):
        windows = [window for number in range(20) for window in cutter.add(number, number * STEP)]
        assert [window.start for window in windows][:4] == starts
        assert all(window.frames == tuple(range(window.start, window.start + 4)) for window in windows)
        cutter.cut()
