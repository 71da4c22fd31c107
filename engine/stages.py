"""Where a process spends its time: seconds per named stage, and its peak memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Stages:
    """Busy seconds per stage of one process."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def figures(self) -> dict[str, Any]:
        """For ``summary.json``: busy seconds per stage, CPU seconds, peak resident memory."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {"busy_s": dict(self.seconds), "cpu_s": used.ru_utime + used.ru_stime, "peak_rss_bytes": peak_rss()}


def peak_rss() -> int:
    """Peak resident memory of this process in bytes, without shared memory, which others would count again.

    Linux's ``ru_maxrss`` starts from the parent's size at the time of the fork, so the kernel's own high-water mark is
    read where there is one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
        return sizes["VmHWM"] - sizes.get("RssShmem", 0)
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
