"""Clip scores to events: when a label begins to hold on a stream and when it ceases to. Pure.

A label's score is smoothed, the mean over the last few clips. Its event starts with the first clip at which that is at
least ``enter``, and ends with the last clip at which it was at least ``leave``. An event is told once it has lasted
``min_duration_s``; a shorter one never is.

Worked example, clips of 1 s, no smoothing, enter 0.6, leave 0.4, at least 2 s::

    clip     0    1    2    3    4    5    6
    score   0.1  0.7  0.5  0.8  0.3  0.9  0.2
                 |~~~~~~~~~~~~|                   started (told after clip 2) at 1 s, ended (after clip 4) at 4 s
                                     |~~|         too short: never told
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Item = TypeVar("Item")

STARTED, ENDED = "started", "ended"
GAP_S = 2.0
"""Stream time without a clip, beyond the stride, after which events end: longer than a few lost clips, shorter than
what anybody would call the same event."""
EARLY_MOST = 256
"""Clips that may wait for an earlier one."""


@dataclass(frozen=True)
class Rule:
    """What makes an event of scores.

    Args:
        enter: a label's smoothed score from which its event starts.
        leave: the score below which it ends, at most ``enter``.
        min_duration_s: a shorter event is never told.
        smooth: clips in the mean, at least 1.
        labels: labels of interest; none: every label.
        gap_s: stream time from one clip's start to the next's above which events end.
    """

    enter: float = 0.6
    leave: float = 0.4
    min_duration_s: float = 1.0
    smooth: int = 3
    labels: tuple[str, ...] = ()
    gap_s: float = GAP_S


@dataclass(frozen=True)
class Seen:
    """One clip's scores and when it was.

    Args:
        start_s: presentation time of its first frame.
        end_s: end of its last frame.
        scores: float32 ``[classes]``.
        at: Unix time of its end; None where that means nothing (a file).
    """

    start_s: float
    end_s: float
    scores: npt.NDArray[np.float32]
    at: float | None = None


@dataclass(frozen=True)
class Event:
    """A label has begun to hold, or has ceased to.

    Args:
        kind: ``STARTED`` or ``ENDED``.
        label: which.
        start_s: start of its first clip, in stream time.
        end_s: end of its last clip; None while it goes on.
        peak: the best smoothed score so far.
        start_at: Unix time of ``start_s``, where clips have one.
        end_at: Unix time of ``end_s``.
    """

    kind: str
    label: str
    start_s: float
    end_s: float | None
    peak: float
    start_at: float | None = None
    end_at: float | None = None


@dataclass
class _Open:
    """An event that goes on, told or not yet."""

    start_s: float
    start_at: float | None
    end_s: float
    end_at: float | None
    peak: float
    told: bool = False


class Detector:
    """The events of one stream. Clips are given in order, see ``InOrder``.

    Args:
        labels: one name per class.
        rule: what makes an event.

    Attributes:
        smoothed: the mean over the last clips, float64 ``[classes]``; None before the first.
    """

    def __init__(self, labels: Sequence[str], rule: Rule) -> None:
        self.smoothed: npt.NDArray[np.float64] | None = None
        self._labels = labels
        self._rule = rule
        self._interest = [c for c, label in enumerate(labels) if not rule.labels or label in rule.labels]
        self._window: deque[npt.NDArray[np.float32]] = deque(maxlen=rule.smooth)
        self._last: Seen | None = None
        self._open: dict[int, _Open] = {}

    def add(self, clip: Seen) -> list[Event]:
        """The events that this clip begins or ends, in that order of time."""
        events = self.end() if self._is_gap(clip) else []
        self._last = clip
        self._window.append(clip.scores)
        self.smoothed = np.mean(self._window, axis=0, dtype=np.float64)
        for number in self._interest:
            score = float(self.smoothed[number])
            if (event := self._judge(number, score, clip)) is not None:
                events.append(event)
        return events

    def end(self) -> list[Event]:
        """What comes next does not go on with what came before: all events end, and smoothing begins anew."""
        events = [self._ended(number) for number in sorted(self._open) if self._open[number].told]
        self._open.clear()
        self._window.clear()
        self.smoothed = None
        self._last = None
        return events

    def _is_gap(self, clip: Seen) -> bool:
        return self._last is not None and not 0 <= clip.start_s - self._last.start_s <= self._rule.gap_s

    def _judge(self, number: int, score: float, clip: Seen) -> Event | None:
        event = self._open.get(number)
        if event is None:
            if score < self._rule.enter:
                return None
            start_at = None if clip.at is None else clip.at - (clip.end_s - clip.start_s)
            event = self._open[number] = _Open(clip.start_s, start_at, clip.end_s, clip.at, score)
        elif score < self._rule.leave:
            ended = self._ended(number) if event.told else None
            del self._open[number]
            return ended
        event.end_s, event.end_at = clip.end_s, clip.at
        event.peak = max(event.peak, score)
        # A nanosecond's grace: times are binary fractions, and 0.64 + 0.36 may fall short of 1.
        if event.told or event.end_s - event.start_s < self._rule.min_duration_s - 1e-9:
            return None
        event.told = True
        return Event(STARTED, self._labels[number], event.start_s, None, event.peak, event.start_at)

    def _ended(self, number: int) -> Event:
        event = self._open[number]
        return Event(ENDED, self._labels[number], event.start_s, event.end_s, event.peak, event.start_at, event.end_at)


class InOrder(Generic[Item]):
    """Puts numbered items in order, from 0 on; what is missing is waited for, within a bound.

    Args:
        wait_s: how long an item waits for an earlier one; infinite where nothing can be missing.
        most: items that may wait; None where what is on its way is bounded by others.
    """

    def __init__(self, *, wait_s: float, most: int | None = EARLY_MOST) -> None:
        self._wait_s = wait_s
        self._most = most
        self._next = 0
        self._early: dict[int, tuple[float, Item]] = {}

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._early)

    def add(self, number: int, item: Item, now: float) -> list[Item]:
        """Take an item; returns those whose turn has come. One that comes too late, or twice, is left out."""
        if number < self._next or number in self._early:
            return []
        self._early[number] = (now, item)
        ready = self._take()
        if self._most is not None and len(self._early) > self._most:
            self._next = min(self._early)
            ready += self._take()
        return ready

    def due(self, now: float) -> list[Item]:
        """Items that have waited long enough for what is missing before them."""
        ready: list[Item] = []
        while self._early:
            first = min(self._early)
            if not any(now - at >= self._wait_s for at, _ in self._early.values()):
                break
            self._next = first
            ready += self._take()
        return ready

    def rest(self) -> list[Item]:
        """All that wait: nothing more will come."""
        items = [self._early[number][1] for number in sorted(self._early)]
        self._next = max(self._early, default=self._next - 1) + 1
        self._early.clear()
        return items

    def _take(self) -> list[Item]:
        taken: list[Item] = []
        while self._next in self._early:
            taken.append(self._early.pop(self._next)[1])
            self._next += 1
        return taken
