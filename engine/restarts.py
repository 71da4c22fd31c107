"""How often a dead process may be replaced, and how soon. Pure: the clock is passed in."""

from __future__ import annotations

from collections import deque

MOST = 5
"""Processes of one role that may be replaced …"""
WITHIN_S = 60.0
"""… within so many seconds, and without anything having been finished since the first of these. What dies more often
will go on dying."""
FIRST_WAIT_S = 0.5
"""The first is replaced at once, the second after this, and each further one after twice the time."""


class Restarts:
    """The replacements of one role so far."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def wait(self, now: float, *, progressed: float) -> float | None:
        """Seconds to wait before the next replacement, which counts from now on; None if there were too many.

        Args:
            now: seconds.
            progressed: when something was last finished, by the same clock.

        Example: deaths one right after another are answered after 0, 0.5, 1, 2 and 4 seconds, then no more.
        """
        while self._times and now - self._times[0] > WITHIN_S and progressed > self._times[0]:
            self._times.popleft()
        before = len(self._times)
        if before >= MOST:
            return None
        self._times.append(now)
        return FIRST_WAIT_S * 2.0 ** (before - 1) if before else 0.0
