"""How long to wait before the next try. Pure: chance is passed in."""

from __future__ import annotations

from random import Random


class Backoff:
    """Waits that double from one failure to the next, with jitter: those who failed together do not return together.

    Args:
        first: seconds before the second try, at most.
        most: seconds that no wait exceeds.
        random: where jitter comes from.
    """

    def __init__(self, *, first: float, most: float, random: Random) -> None:
        self._first = first
        self._most = most
        self._random = random
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure: half of what it has come to at least."""
        wait = min(self._most, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return wait * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It works again."""
        self._failures = 0
