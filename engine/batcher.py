"""Which clips form the next batch. Pure: no sockets, no device, and the clock is passed in.

Clips of the video that was handed out first go first: predictions are there sooner than if decoders took turns, and
fewer videos are open at a time. The rest of the very first video goes alone, so that the first prediction waits for no
clip of others; after that batches are as full as they can be.

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
    """Clips waiting for the device, as inference sees them: all of them in order, or live ones (engine/fair.py)."""

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
    """Clips waiting for the device, video by video as far as they are there.

    Args:
        size: clips in a full batch, at least 1.
        max_delay: seconds that a clip may wait for its batch to fill while the device is idle.
        video_of: the number of a clip's video, in the order in which videos were handed out.
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
        self._first: int | None = None  # the first batch's video
        self._only_first = True  # all batches so far were of that one

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more clips to take in: two batches, the one that goes next and the one that fills behind it."""
        return 2 * self.size - len(self._waiting)

    def add(self, item: Item, now: float) -> None:
        """Append a clip that arrived at ``now`` seconds."""
        self._waiting.append((now, item))

    def take(self, now: float, *, idle: bool, more: bool) -> list[Item]:
        """The next batch, videos in order and each one's clips as they came; empty if it is better to wait.

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
        videos = [self._video_of(item) for _, item in self._waiting]
        order = sorted(range(count), key=videos.__getitem__)
        size = self._without_others([videos[place] for place in order[:size]])
        batch = [self._waiting[place][1] for place in order[:size]]
        self._waiting = [self._waiting[place] for place in sorted(order[size:])]
        return batch

    def _without_others(self, videos: list[int]) -> int:
        """How many clips of a batch to take: the rest of the first video if they are that, else all of them."""
        if not self._only_first:
            return len(videos)
        begun = self._first is not None
        first = self._first = videos[0] if self._first is None else self._first
        rest = videos.count(first)
        self._only_first = rest == len(videos)
        return rest if begun and rest else len(videos)

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
