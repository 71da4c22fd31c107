"""How many decoders a run needs, found out while it goes on. Pure: the clock is passed in.

On a CPU decoders take their cores from inference, and one often decodes more than all cores can infer: a run begins
with few. While they decode without a pause and the queue to the device stays low, there are soon twice as many, up to
one per core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOOK_EVERY_S = 1.0
WAITS_BELOW = 0.1
"""The share of decoders' time spent waiting for room below which they are what others wait for."""
BUSY_FROM = 0.5
"""A decoder that tells of less of the time since the last look has only begun, or has nothing to do."""
LOW = 0.5
"""A queue to the device that is less full is being emptied as fast as it fills."""


@dataclass(frozen=True)
class Load:
    """Seconds that a decoder has spent so far: at work, and waiting for room in the queue."""

    busy_s: float = 0.0
    wait_s: float = 0.0


class Growth:
    """Decides when there are to be more decoders.

    Args:
        first: decoders in the beginning.
        most: decoders at most; with as many in the beginning there are never more.
    """

    def __init__(self, first: int, most: int) -> None:
        self.count = first
        self._most = most
        self._looked_at = float("-inf")
        self._before: dict[str, Load] = {}

    def look(self, now: float, loads: Mapping[str, Load], queue_fill: float) -> int:
        """How many decoders to add now; they count from then on.

        Args:
            now: seconds.
            loads: of the living decoders, by name, as they told last.
            queue_fill: of the queue to the device, 0…1.
        """
        if self.count >= self._most or now - self._looked_at < LOOK_EVERY_S:
            return 0
        busy = wait = 0.0
        idle = len(loads) < self.count  # one is being replaced
        for name, load in loads.items():
            before = self._before.get(name, load)
            worked, waited = load.busy_s - before.busy_s, load.wait_s - before.wait_s
            idle = idle or worked + waited < BUSY_FROM * (now - self._looked_at)
            busy += worked
            wait += waited
        self._looked_at, self._before = now, dict(loads)
        if idle or queue_fill >= LOW or wait >= WAITS_BELOW * (busy + wait):
            return 0
        added = min(self.count, self._most - self.count)
        self.count += added
        return added
