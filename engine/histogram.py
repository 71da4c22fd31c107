"""Percentiles of any number of durations in constant memory. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

STEP = math.log(1.02)
"""Neighbouring buckets are 2% apart, which bounds the error of a percentile."""
LEAST = 1e-6


class Histogram:
    """Counts of durations in seconds, in buckets whose bounds grow by 2%."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.seconds = 0.0

    @classmethod
    def of(cls, *counts: Mapping[str, int]) -> Histogram:
        """What several say that their buckets hold, together; ``seconds`` is not among it."""
        made = cls()
        for part in counts:
            for bucket, count in part.items():
                made._buckets[int(bucket)] = made._buckets.get(int(bucket), 0) + count
                made.count += count
        return made

    def add(self, seconds: float) -> None:
        """Count one duration; below a microsecond counts as one."""
        bucket = round(math.log(max(seconds, LEAST) / LEAST) / STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self.seconds += seconds

    def counts(self) -> dict[str, int]:
        """How many durations each bucket holds, by its number, for ``middle``; empty ones are left out."""
        return {str(bucket): count for bucket, count in self._buckets.items()}

    def buckets(self) -> list[tuple[float, int]]:
        """Upper bounds in seconds, rising, and how many durations each bucket holds; empty ones are left out."""
        return [(LEAST * math.exp((bucket + 0.5) * STEP), self._buckets[bucket]) for bucket in sorted(self._buckets)]

    def percentile(self, percent: float) -> float | None:
        """The duration that ``percent`` of all are at most, to 2%; None if there are none."""
        rank = math.ceil(self.count * percent / 100)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return middle(bucket)
        return None


def middle(bucket: int) -> float:
    """What durations in a bucket are, to 1%, in seconds."""
    return LEAST * math.exp(bucket * STEP)
