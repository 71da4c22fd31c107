"""Which clips of which streams form the next batch, and which are given up. Pure: the clock is passed in.

Streams have equal or weighted shares of the device. A stream's *virtual time* is what it has been given, by its weight;
the stream that has the least goes first, its oldest clip first. One that had nothing to offer begins where the others
are, so that nobody saves up a share (start-time fair queuing: Goyal, Vin, Cheng 1996).

A clip is given up when it can no longer be scored within ``max_latency`` of its last frame, or when more wait than
there is room for: then the oldest clip of the stream that is furthest over its share. Everything given up is counted.
What the device lately took for a clip says how many clips go into a batch, so that it takes half of ``max_latency`` at
most, and how long before its time is up a clip must go.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

REMEMBERED = 8
"""The slowest of so many batches says what a clip takes."""


@dataclass
class _Stream(Generic[Item]):
    weight: float = 1.0
    time: float = 0.0
    waiting: deque[tuple[float, Item]] = field(default_factory=deque)
    """(when it arrived, clip), oldest first."""


class FairBatcher(Generic[Item]):
    """Clips of many streams waiting for the device; ``engine/batcher.py``'s face, and what was dropped.

    Args:
        size: clips in a full batch, at least 1.
        max_delay: seconds that a clip may wait for its batch to fill while the device is idle.
        max_latency: seconds from a clip's last frame within which it must be scored, or is not scored at all.
        capacity: clips that may wait altogether.
        stream_of: the number of a clip's stream.
        decoded_at: when a clip's last frame was there, by the same clock.
        runners: batches that the device works on at the same time, among which what waits is shared out: a batch of
            few is scored sooner, and the more there are, the fuller batches become.
    """

    def __init__(
        self,
        *,
        size: int,
        max_delay: float,
        max_latency: float,
        capacity: int,
        stream_of: Callable[[Item], int],
        decoded_at: Callable[[Item], float],
        runners: int = 1,
    ) -> None:
        if size < 1 or max_delay < 0 or max_latency <= 0 or capacity < size:
            raise ValueError(
                f"size {size} must be at least 1, max_delay {max_delay} at least 0, max_latency {max_latency} above 0 "
                f"and capacity {capacity} at least the size"
            )
        self.size = size
        self._max_delay = max_delay
        self._max_latency = max_latency
        self._capacity = capacity
        self._stream_of = stream_of
        self._decoded_at = decoded_at
        self._runners = runners
        self._streams: dict[int, _Stream[Item]] = {}
        self._active: dict[int, _Stream[Item]] = {}
        """Those that have something waiting: few of a thousand, as long as the device keeps up."""
        self._time = 0.0
        """The virtual time of the stream that was served last."""
        self._count = 0
        self._dropped: list[Item] = []
        self._drops: dict[int, int] = {}
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        """Seconds for each clip of the last batches."""

    def __len__(self) -> int:
        return self._count

    @property
    def room(self) -> int:
        """How many clips to take in: always a batch, since what is too much is given up here, the oldest first."""
        return max(self.size, self._capacity - self._count)

    @property
    def drops(self) -> dict[int, int]:
        """Clips given up so far, by stream."""
        return dict(self._drops)

    def weigh(self, weights: Mapping[int, float]) -> None:
        """Set the weights of all streams there are; others are forgotten, and what they still have here is dropped."""
        for number in self._streams.keys() - weights.keys():
            stream = self._streams[number]
            while stream.waiting:
                self._drop(stream)
            del self._streams[number]
        for number, weight in weights.items():
            self._streams.setdefault(number, _Stream(time=self._time)).weight = weight

    def add(self, item: Item, now: float) -> None:
        """Append a clip that arrived at ``now`` seconds; may give up another."""
        number = self._stream_of(item)
        stream = self._streams.setdefault(number, _Stream(time=self._time))
        if not stream.waiting:
            stream.time = max(stream.time, self._time)
            self._active[number] = stream
        stream.waiting.append((now, item))
        self._count += 1
        if self._count > self._capacity:
            self._drop(max(self._active.values(), key=lambda one: len(one.waiting) / one.weight))

    def take(self, now: float, *, idle: bool, more: bool) -> list[Item]:
        """The next batch; empty if it is better to wait. Clips wait here, where order and drops are decided.

        Args:
            now: seconds, of the same clock as ``add``'s.
            idle: the device has nothing else to do; a busy one gets nothing, for what it holds cannot be given up.
            more: further clips are on their way. Streams have no end, so that a wait is only bounded by ``max_delay``.
        """
        self._give_up(now)
        most = self._batch
        if not idle or not self._count or (self._count < most and more and self.due(now) != 0):
            return []
        return [self._serve() for _ in range(min(most, math.ceil(self._count / self._runners)))]

    def full(self, *, idle: bool) -> bool:
        """Whether a full batch would go at once to a device that has a place."""
        return idle and self._count >= self._batch

    def due(self, now: float) -> float | None:
        """Seconds until an idle device would get a partial batch; None if no clip waits."""
        arrived = [stream.waiting[0][0] for stream in self._active.values()]
        return max(0.0, min(arrived) + self._max_delay - now) if arrived else None

    def took(self, count: int, seconds: float) -> None:
        """The device took so long for a batch of so many clips."""
        self._took.append(seconds / count)

    def dropped(self, now: float) -> list[Item]:
        """The clips given up since this was last asked."""
        self._give_up(now)
        dropped, self._dropped = self._dropped, []
        return dropped

    def _serve(self) -> Item:
        stream = min(self._active.values(), key=lambda one: (one.time, one.waiting[0][0]))
        self._time = stream.time
        stream.time += 1 / stream.weight
        return self._pop(stream)

    def _pop(self, stream: _Stream[Item]) -> Item:
        """A stream's oldest clip, which waits no longer."""
        _, item = stream.waiting.popleft()
        self._count -= 1
        if not stream.waiting:
            del self._active[self._stream_of(item)]
        return item

    @property
    def _batch(self) -> int:
        """Clips in a batch: a full one, or as many as take half of the time there is."""
        per_clip = max(self._took, default=0.0)
        return self.size if per_clip <= 0 else max(1, min(self.size, int(self._max_latency / 2 / per_clip)))

    def _give_up(self, now: float) -> None:
        """Drop what can no longer be scored in time."""
        # At most half of the time that there is: what is never tried would never be found to be fast again.
        takes = min(self._batch * max(self._took, default=0.0), self._max_latency / 2)
        latest = now + takes - self._max_latency
        for stream in list(self._active.values()):
            while stream.waiting and self._decoded_at(stream.waiting[0][1]) < latest:
                self._drop(stream)

    def _drop(self, stream: _Stream[Item]) -> None:
        item = self._pop(stream)
        number = self._stream_of(item)
        self._dropped.append(item)
        self._drops[number] = self._drops.get(number, 0) + 1
