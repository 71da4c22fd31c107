"""Which frames form which clip: sliding windows over a stream of frames of unknown length. Pure.

Worked example, length 4 and stride 2, frames a b c d e f g::

    a b c d      start 0
        c d e f  start 2
            e f g e   start 4: runs past the end, so it repeats itself from its own start, and is the last one
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Generic, TypeVar

Raw = TypeVar("Raw")
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Window(Generic[Kept]):
    """``length`` frames from ``start`` on (0-based); ``covered`` of them are different ones, the rest repeat."""

    start: int
    covered: int
    frames: tuple[Kept, ...]


def in_a_window(number: int, *, length: int, stride: int) -> bool:
    """Whether a window of ``windows`` may need frame ``number``, counted from 0."""
    return number % stride < length


def windows(frames: Iterable[Raw], *, length: int, stride: int, keep: Callable[[Raw], Kept]) -> Iterator[Window[Kept]]:
    """Cut a stream of frames into windows, holding at most ``length`` frames.

    A window starts at every ``stride``-th frame. One that runs past the last frame is padded by repeating itself and
    ends the stream, even when the stride would allow more starts (3D-ResNets-PyTorch, ``TemporalSlidingWindow``).

    Args:
        frames: any iterable.
        length: frames per window, at least 1.
        stride: frames from one start to the next, at least 1; above ``length``, frames between windows are dropped.
        keep: called once per frame that some window needs, in order; what it returns is what windows hold.
    """
    if length < 1 or stride < 1:
        raise ValueError(f"length {length} and stride {stride} must be at least 1")
    held: deque[Kept] = deque()
    start = 0
    for number, frame in enumerate(frames):
        if number < start:
            continue
        held.append(keep(frame))
        if len(held) == length:
            yield Window(start, length, tuple(held))
            start += stride
            for _ in range(min(stride, length)):
                held.popleft()
    if held:
        yield Window(start, len(held), tuple(islice(cycle(held), length)))
