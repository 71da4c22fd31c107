"""Frames of streams a few at a time: all of them, in order, none before it is due, and none late that is needed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from clipmux.workers.decode import Frame
from clipmux.workers.live_sources import BEHIND_FOR_S, Received, SourceError, _in_groups, _paced, keeping_up

BASE = 1 / 90_000
PICTURE = Image.new("RGB", (2, 2))


@dataclass
class Packet:
    """As much of a packet as is looked at."""

    pts: int | None
    size: int = 1


def at_fps(fps: float, order: list[int]) -> Iterator[Any]:
    """Packets of these frames, in this order, and then the end of the connection."""
    for number in order:
        yield Packet(round(number / fps / BASE))
    raise SourceError("has ended")


def groups(packets: Iterator[Any], needed: Any) -> list[list[int]]:
    """What is let through after each packet that comes."""
    came: list[list[int]] = []

    def watched() -> Iterator[Any]:
        for packet in packets:
            came.append([])
            yield packet

    with contextlib.suppress(SourceError):
        for packet, at in _in_groups(watched(), BASE, needed):
            assert at <= time.monotonic()
            came[-1].append(-1 if packet.pts is None else packet.pts)
    return came


def test_packets_wait_for_the_one_that_completes_a_clip() -> None:
    came = groups(at_fps(10, list(range(7))), lambda: 0.4)
    assert [len(each) for each in came] == [0, 0, 0, 0, 5, 1, 1]  # it goes on until the clip is there
    assert [pts for each in came for pts in each] == [round(number / 10 / BASE) for number in range(7)]


def test_packets_in_another_order_wait_for_none_that_is_needed() -> None:
    came = groups(at_fps(10, [0, 3, 1, 2, 6, 4, 5]), lambda: 0.3)
    assert [len(each) for each in came] == [0, 2, 1, 1, 1, 1, 1]


def test_what_is_held_when_the_connection_ends_is_not_lost() -> None:
    assert sum(len(each) for each in groups(at_fps(10, [0, 1, 2]), lambda: 9.0)) == 3


def test_nothing_waits_without_a_clip_that_has_begun_or_without_times() -> None:
    assert [len(each) for each in groups(at_fps(10, [0, 1, 2]), lambda: None)] == [1, 1, 1]

    def untimed() -> Iterator[Any]:
        yield from (Packet(None), Packet(None))
        raise SourceError("has ended")

    assert [len(each) for each in groups(untimed(), lambda: 9.0)] == [1, 1]


def test_times_that_begin_anew_wait_again() -> None:
    came = groups(at_fps(10, [90, 91, 0, 1, 2]), iter((9.0, 9.0, 0.2, 0.2, 0.2)).__next__)
    assert [len(each) for each in came] == [1, 1, 0, 0, 3]


def test_a_files_frames_come_a_few_at_a_time_and_none_before_it_is_due() -> None:
    """Fifty a second, of which the ninth, the nineteenth and so on complete clips."""
    decoded: list[float] = []

    def frames() -> Iterator[Frame]:
        for number in range(40):
            decoded.append(time.monotonic())
            yield Frame(PICTURE, number / 50, 1 / 50)

    last = -1

    def completes() -> float | None:
        return None if last < 0 else (9 + 10 * math.floor((last + 1) / 10) - 0.5) / 50

    ticks: list[None] = []
    for number, received in enumerate(
        _paced(frames(), 1.0, 9.0, lambda: ticks.append(None), completes, lambda now: now)
    ):
        assert received.at <= time.monotonic()
        assert received.frame.seconds == number / 50
        last = number
    assert len(decoded) == 40
    assert len(ticks) < 20, "it woke for each of them"


def test_a_file_begins_when_it_is_told_to() -> None:
    began = time.monotonic()
    frames = iter([Frame(PICTURE, 3.0, 0.04), Frame(PICTURE, 3.04, 0.04)])
    first, second = _paced(frames, 1.0, 9.0, lambda: None, lambda: None, lambda now: now + 0.1)
    assert first.at >= began + 0.1
    assert second.at - first.at == pytest.approx(0.04)


@pytest.mark.parametrize("jump", [1000.0, -1000.0])
def test_a_file_whose_times_jump_plays_on(jump: float) -> None:
    times = [0.0, 0.02, 0.04, 0.06 + jump, 0.08 + jump]
    frames = (Frame(PICTURE, seconds, 0.02) for seconds in times)
    began = time.monotonic()
    received = list(_paced(frames, 1.0, 1.0, lambda: None, lambda: None, lambda now: now))
    assert [one.frame.seconds for one in received] == times
    assert max(one.at for one in received) < began + 60


@pytest.mark.parametrize("jumps", [{50: -10.0}, {50: -3.0}, {50: 8.0, 51: -8.0}, {50: 1000.0}])
def test_a_clock_that_jumps_is_not_taken_for_falling_behind(jumps: dict[int, float]) -> None:
    """A frame every tenth of a second, for long enough; at some of them its clock is set."""
    shift, frames = 0.0, []
    for number in range(50 + round(20 * BEHIND_FOR_S)):
        shift += jumps.get(number, 0.0)
        frames.append(Received(Frame(PICTURE, 100 + number / 10 + shift, 0.1), number / 10))
    assert list(keeping_up(iter(frames))) == frames


def test_falling_behind_is_noticed_after_a_jump_too() -> None:
    late = (Received(Frame(PICTURE, number / 10 - 50 * (number > 9), 0.1), number / 5) for number in range(1000))
    with pytest.raises(SourceError, match="late"):
        list(keeping_up(late))
