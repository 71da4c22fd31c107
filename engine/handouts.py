"""Which videos have no outcome yet, and which of them are to be handed out again. Pure: no processes, no sockets.

A video is the unit of retry. Each hand-out has an attempt number, and whatever an older attempt still sends is
discarded. A video whose decoder did not survive it is handed out twice more at most; one that was only on its way when
another process died, as often as it takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipmux.workers.sources import Video

ATTEMPTS = 3
"""Decoders that one video may bring down, by a crash or by a stall."""


@dataclass
class Handout:
    """A video that has no outcome yet."""

    number: int
    video: Video
    attempt: int = 1
    faults: int = 0


class Handouts:
    """The videos that were handed out and have no outcome.

    Attributes:
        handed: how many were handed out so far, which is also the number of the next one.
    """

    def __init__(self) -> None:
        self.handed = 0
        self._pending: dict[int, Handout] = {}
        self._again: set[int] = set()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def pending(self) -> list[Handout]:
        """All without an outcome, by number."""
        return list(self._pending.values())

    @property
    def waiting(self) -> bool:
        """Some video is to be handed out again."""
        return bool(self._again)

    def add(self, video: Video) -> Handout:
        """A video that is handed out for the first time."""
        handout = self._pending[self.handed] = Handout(self.handed, video)
        self.handed += 1
        return handout

    def take_again(self) -> Handout | None:
        """The first of those that are to be handed out again; None if none is."""
        if not self._again:
            return None
        number = min(self._again)
        self._again.remove(number)
        return self._pending[number]

    def done(self, number: int) -> bool:
        """It has its outcome; False if it had one before."""
        self._again.discard(number)  # an earlier attempt was complete after all
        return self._pending.pop(number, None) is not None

    def lost(self, numbers: Iterable[int]) -> None:
        """What was sent of these may never have arrived, and not because of them: they go out again."""
        for number in numbers:
            if number in self._pending and number not in self._again:
                self._pending[number].attempt += 1
                self._again.add(number)

    def lost_all(self) -> None:
        """``lost`` for all without an outcome."""
        self.lost(list(self._pending))

    def fault(self, number: int) -> Handout | None:
        """A decoder came to grief over this video: it goes out again. If that was the last time, it is returned."""
        handout = self._pending[number]
        handout.faults += 1
        if handout.faults >= ATTEMPTS:
            return handout
        self.lost([number])
        return None
