"""Which clips form the next batch. Pure: no sockets, no device, and the clock is passed in.

Clips go as they came, but for those of the first video, which overtake others, and whose last ones go alone if no batch
has held others' yet: so the first prediction is there nearly as soon as if that video was the only one, for one batch
that is not full. That no other video overtakes keeps all decoders at work.

The batcher is work-conserving. A full batch goes as soon as there is a place for it. A partial one goes only to an
*idle* device (a busy one loses nothing if its next batch goes on filling), and then only when nothing more is on its
way or the oldest clip has waited ``max_delay``. The last clips of all are shared out among the runners, so that none
idles while another has a full batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")


class Waiting(Protocol[Item]):
    """Clips waiting for the device, as inference sees them: all of them (below), or live ones (engine/fair.py)."""

    size: int
    """Clips in a full batch."""

    def __len__(self) -> int: ...

    @property
    def room(self) -> int:
        """How many more clips to take in."""

    def add(self, item: Item, now: float) -> None:
        """Append a clip that arrived at ``now`` seconds."""

    def take(self, now: float, *, idle: bool, more: bool) -> list[Item]:
        """The next batch; empty if it is better to wait."""

    def full(self, *, idle: bool) -> bool:
        """Whether a full batch would go at once to a device that has a place."""

    def due(self, now: float) -> float | None:
        """Seconds until an idle device would get a partial batch; None if no clip waits."""

    def took(self, count: int, seconds: float) -> None:
        """The device took so long for a batch of so many clips."""

    def dropped(self, now: float) -> list[Item]:
        """The clips that were given up since this was last asked."""

    @property
    def drops(self) -> dict[int, int]:
        """How many have been given up so far, by stream."""


class Batcher(Generic[Item]):
    """Clips waiting for the device, first come first served, but for the first video's.

    Args:
        size: clips in a full batch, at least 1.
        max_delay: seconds that a clip may wait for its batch to fill while the device is idle.
        video_of: the number of a clip's video.
        runners: batches that the device works on at the same time.
    """

    def __init__(self, *, size: int, max_delay: float, video_of: Callable[[Item], int], runners: int = 1) -> None:
        if size < 1 or max_delay < 0:
            raise ValueError(f"size {size} must be at least 1 and max_delay {max_delay} at least 0")
        self.size = size
        self._max_delay = max_delay
        self._video_of = video_of
        self._runners = runners
        self._waiting: list[tuple[float, Item]] = []  # as they came
        self._first: int | None = None  # the video of the first clip that came
        self._begun, self._only_first = False, True  # there was a batch; all so far were of that video

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more clips to take in: two batches, the one that goes next and the one that fills behind it."""
        return 2 * self.size - len(self._waiting)

    def add(self, item: Item, now: float) -> None:
        """Append a clip that arrived at ``now`` seconds."""
        if self._first is None:
            self._first = self._video_of(item)
        self._waiting.append((now, item))

    def take(self, now: float, *, idle: bool, more: bool) -> list[Item]:
        """The next batch; empty if it is better to wait.

        Args:
            now: seconds, of the same clock as ``add``'s.
            idle: the device has nothing else to do.
            more: further clips are on their way.
        """
        count = len(self._waiting)
        if count < self.size and not (idle and count and (not more or self.due(now) == 0)):
            return []
        size = min(count, self.size)
        if not more:  # half a batch at least: smaller ones cost more than they save
            size = min(size, max(self.size // 2, math.ceil(count / self._runners)))
        others = [self._video_of(item) != self._first for _, item in self._waiting]
        order = sorted(range(count), key=others.__getitem__)  # those of the first video, then others, each as they came
        of_first = others.count(False)
        if self._only_first and self._begun and of_first:
            size = min(size, of_first)
        batch = [self._waiting[place][1] for place in order[:size]]
        self._waiting = [self._waiting[place] for place in sorted(order[size:])]
        self._begun = True
        self._only_first = self._only_first and (of_first > size or of_first == count)
        return batch

    def full(self, *, idle: bool) -> bool:  # noqa: ARG002  (a busy device gets full batches too)
        """Whether a full batch would go at once to a device that has a place."""
        return len(self._waiting) >= self.size

    def due(self, now: float) -> float | None:
        """Seconds until an idle device would get a partial batch; None if no clip waits."""
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0][0] + self._max_delay - now)

    def took(self, count: int, seconds: float) -> None:
        """How long the device takes changes nothing: nothing is ever given up."""

    def dropped(self, now: float) -> list[Item]:  # noqa: ARG002
        """Nothing is ever given up."""
        return []

    @property
    def drops(self) -> dict[int, int]:
        """Nothing is ever given up."""
        return {}
