"""Sliding windows: the reference's, from a stream, holding no more than a window."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.workers.windows import Window, in_a_window, windows

frames = st.integers(0, 80)
lengths = st.integers(1, 20)
strides = st.integers(1, 30)


def same(frame: int) -> int:
    return frame


def direct(n: int, length: int, stride: int) -> list[Window[int]]:
    """The same by index arithmetic: a start counts if it is the first or the window before it was whole."""
    starts = [start for start in range(0, n, stride) if start == 0 or start - stride + length <= n]
    cover = [min(length, n - start) for start in starts]
    return [Window(s, c, tuple(s + i % c for i in range(length))) for s, c in zip(starts, cover, strict=True)]


def test_the_reference_cuts_the_same_windows(shared_data: Path) -> None:
    cases = json.loads((shared_data / "sliding_windows.json").read_text())
    assert len(cases) == 275
    for case in cases:
        cut = windows(range(case["frames"]), length=case["clip_length"], stride=case["stride"], keep=same)
        assert [list(window.frames) for window in cut] == case["windows"], case


@settings(deadline=None)
@given(frames, lengths, strides)
def test_any_numbers(n: int, length: int, stride: int) -> None:
    assert list(windows(range(n), length=length, stride=stride, keep=same)) == direct(n, length, stride)


@settings(deadline=None)
@given(frames, lengths, strides)
def test_every_frame_that_is_needed_is_kept_once_and_no_other(n: int, length: int, stride: int) -> None:
    kept: list[int] = []

    def keep(frame: int) -> int:
        kept.append(frame)
        return frame

    list(windows(range(n), length=length, stride=stride, keep=keep))
    assert kept == [frame for frame in range(n) if frame % stride < length or stride <= length]


@settings(deadline=None)
@given(frames, lengths, strides)
def test_no_more_than_a_window_is_held(n: int, length: int, stride: int) -> None:
    class Frame:
        """Something that can be watched."""

    alive: weakref.WeakSet[Frame] = weakref.WeakSet()

    def keep(_: int) -> Frame:
        frame = Frame()
        alive.add(frame)
        assert len(alive) <= length
        return frame

    cut = windows(range(n), length=length, stride=stride, keep=keep)
    while next(cut, None) is not None:
        pass


@settings(deadline=None)
@given(frames, lengths, strides)
def test_frames_that_no_window_needs_are_known_beforehand(n: int, length: int, stride: int) -> None:
    kept: list[int] = []

    def keep(frame: int) -> int:
        kept.append(frame)
        return frame

    list(windows(range(n), length=length, stride=stride, keep=keep))
    assert kept == [number for number in range(n) if in_a_window(number, length=length, stride=stride)]


def test_an_endless_stream_gives_each_window_as_soon_as_it_is_whole() -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        for number in count():
            read = number + 1
            yield number

    cut = windows(endless(), length=16, stride=8, keep=same)
    for number, window in enumerate(islice(cut, 1000)):
        assert window == Window(8 * number, 16, tuple(range(8 * number, 8 * number + 16)))
        assert read == 8 * number + 16


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (1, 0), (-1, 1)])
def test_nothing_below_one(length: int, stride: int) -> None:
    with pytest.raises(ValueError, match=f"length {length} and stride {stride}"):
        next(windows([1], length=length, stride=stride, keep=same))
