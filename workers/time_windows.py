"""Which frames of a stream form which clip: sampled by time, however fast the camera is. Pure.

Times on a grid at the model's frame rate each take the frame that is nearest in presentation time: of a faster camera
some frames are left out, of a slower one some are repeated. Clips are ``length`` neighbouring times of the grid.

Worked example, a grid at 25 a second (every 40 ms) and a camera at 30, frames at 0, 33, 67, 100, 133, 167, 200 ms::

    grid    0   40   80   120   160   200
    frame   0   33   67   133   167   200      the frame at 100 ms is nearest to none

A frame is taken the moment it comes, if none that can be expected after it will be nearer: waiting for the next one to
make sure would make every clip late. A clip never spans a gap, and times begin anew after one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Generic, TypeVar

Raw = TypeVar("Raw")
Kept = TypeVar("Kept")

GAP_S = 1.0
"""A step in presentation time above this is a gap."""


@dataclass(frozen=True)
class TimedWindow(Generic[Kept]):
    """One clip's frames.

    Args:
        start: its first time's place on the grid since the last gap, 0-based.
        covered: how many frames are its own; the rest repeat them (only at the end of a file).
        frames: ``length`` of them.
        seconds: presentation time of its first frame, and the end of its last one.
    """

    start: int
    covered: int
    frames: tuple[Kept, ...]
    seconds: tuple[float, float]


@dataclass(frozen=True)
class _Sample(Generic[Kept]):
    kept: Kept
    seconds: float
    end: float


class TimeWindows(Generic[Raw, Kept]):
    """Cuts a stream into clips as its frames come.

    Args:
        length: frames of a clip, at least 1.
        rate: times per second on the grid, above 0.
        stride_s: seconds from one clip's start to the next's; rounded to whole steps of the grid, at least one.
        keep: called once for each frame that a clip takes, in order; what it returns is what clips hold.
        gap_s: a longer step in time is a gap.
        first_stride_s: asked at every beginning for the seconds from the first clip's start to the second's, at most
            ``stride_s``; without it, that.
    """

    def __init__(
        self,
        *,
        length: int,
        rate: float,
        stride_s: float,
        keep: Callable[[Raw], Kept],
        gap_s: float = GAP_S,
        first_stride_s: Callable[[], float] | None = None,
    ) -> None:
        if length < 1 or not rate > 0 or not stride_s > 0 or not gap_s > 0:
            raise ValueError(f"length {length}, rate {rate}, stride_s {stride_s} and gap_s {gap_s} must be above 0")
        self._length = length
        self._step = 1 / rate
        self._stride = max(1, round(stride_s * rate))
        self._keep = keep
        self._gap = gap_s
        self._first_stride_s = first_stride_s or (lambda: stride_s)
        self.cut()

    def cut(self) -> None:
        """Forget the clips that have begun: what comes next does not go on with what came before."""
        self._origin: float | None = None
        self._next = 0
        """The first time of the grid that has no frame yet."""
        self._start = 0
        self._first_stride = self._stride
        self._held: deque[_Sample[Kept]] = deque()
        self._last: tuple[Raw, float, float] | None = None
        self._last_kept: Kept | None = None
        self._spacings: deque[float] = deque(maxlen=2)

    @property
    def taken(self) -> int:
        """How many times of the grid have had their frame since the last gap."""
        return self._next

    @property
    def completes_at(self) -> float | None:
        """The presentation time from which on a frame completes the next clip; None while no clip has begun."""
        if self._origin is None:
            return None
        return self._grid(self._start + self._length - 1) - self._reach

    def breaks(self, seconds: float) -> bool:
        """A frame at this time would be a gap away from the last one, or before it."""
        return self._last is not None and not 0 <= seconds - self._last[1] <= self._gap

    def add(self, frame: Raw, seconds: float, duration: float | None = None) -> list[TimedWindow[Kept]]:
        """Take the next frame; returns the clips that it completes, usually none and rarely more than one.

        A gap before it cuts.

        Args:
            frame: what ``keep`` is given, now or when the next frame comes.
            seconds: its presentation time.
            duration: how long it lasts, where that is known; else as long as the last ones did.
        """
        if self.breaks(seconds):
            self.cut()
        if self._last is not None:
            if seconds == self._last[1]:
                return []
            self._spacings.append(seconds - self._last[1])
        if self._origin is None:
            self._origin = seconds
            self._first_stride = max(1, min(self._stride, round(self._first_stride_s() / self._step)))
        windows = self._between(seconds)
        lasts = duration or (min(self._spacings) if self._spacings else self._step)
        self._last, self._last_kept = (frame, seconds, seconds + lasts), None
        # The next frame is expected after as long as it took lately: up to half way there, this one is the nearest.
        reach = seconds + self._reach
        while self._grid(self._next) <= reach:
            windows += self._take()
        return windows

    def end(self) -> list[TimedWindow[Kept]]:
        """The stream is over: the clip that has begun, filled by repeating itself from its start, if there is one."""
        held = list(self._held)
        self._held.clear()
        if not held:
            return []
        frames = tuple(islice(cycle(sample.kept for sample in held), self._length))
        return [TimedWindow(self._start, len(held), frames, (held[0].seconds, held[-1].end))]

    @property
    def _reach(self) -> float:
        """Half of the time from one frame to the next, lately."""
        return min(self._spacings) / 2 if self._spacings else 0.0

    def _grid(self, number: int) -> float:
        return (self._origin or 0.0) + number * self._step

    def _between(self, seconds: float) -> list[TimedWindow[Kept]]:
        """Times nearer to the last frame than to one at ``seconds``."""
        windows: list[TimedWindow[Kept]] = []
        if self._last is not None:
            half = (self._last[1] + seconds) / 2
            while self._grid(self._next) < half:
                windows += self._take()
        return windows

    def _take(self) -> list[TimedWindow[Kept]]:
        """Let the last frame have the next time of the grid."""
        number = self._next
        self._next += 1
        if number < self._start:  # a stride above the length: between clips
            return []
        assert self._last is not None  # noqa: S101  (only called then)
        frame, seconds, end = self._last
        if self._last_kept is None:
            self._last_kept = self._keep(frame)
        self._held.append(_Sample(self._last_kept, seconds, end))
        if len(self._held) < self._length:
            return []
        held = tuple(self._held)
        window = TimedWindow(
            self._start, self._length, tuple(sample.kept for sample in held), (held[0].seconds, held[-1].end)
        )
        stride = self._stride if self._start else self._first_stride
        self._start += stride
        for _ in range(min(stride, self._length)):
            self._held.popleft()
        return [window]
