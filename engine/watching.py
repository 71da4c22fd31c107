"""How a run may be looked at while it goes on, and what does the showing: see docs/observability.md."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError
from .logs import LOG_FORMATS, TEXT
from .observer import Observer

STUCK_AFTER_S = 30.0


@dataclass(frozen=True)
class Watching:
    """What is shown of a run; by default only its log. Checked when made.

    Args:
        metrics: IP address and port to serve ``/metrics`` and ``/healthz`` at; none if empty.
        allow_remote: an address that other machines can reach is meant.
        stuck_after_s: seconds without progress that make a stage with work a stuck one.
        log_format: ``text`` or ``json``.
        trace: file to write a trace to.
    """

    metrics: str = ""
    allow_remote: bool = False
    stuck_after_s: float = STUCK_AFTER_S
    log_format: str = TEXT
    trace: Path | None = None

    def __post_init__(self) -> None:
        if self.log_format not in LOG_FORMATS:
            raise UsageError(f"--log-format is '{self.log_format}': give one of {', '.join(LOG_FORMATS)}")
        if not self.stuck_after_s > 0:
            raise UsageError(f"--stuck-after is {self.stuck_after_s:g}: give seconds above 0")
        try:
            there = self.trace is not None and self.trace.exists()
        except OSError as error:
            raise UsageError(f"--trace is '{self.trace}' ({error.strerror}): give another file") from None
        if there:
            raise UsageError(f"--trace is '{self.trace}', which exists: give another file, or remove it")


@contextlib.contextmanager
def watched(watching: Watching, *, live: bool = False) -> Iterator[Observer]:
    """An observer for a supervisor, and a server that shows what it is told, if one is wanted, while inside.

    Args:
        watching: what is wanted.
        live: it is of live streams, not of videos.

    Raises:
        UsageError: the address is not allowed, or cannot be had.
    """
    observer = Observer(log_format=watching.log_format, trace=watching.trace)
    if not watching.metrics:
        yield observer
        return
    from .metrics import FAMILIES, LIVE_FAMILIES, Metrics
    from .status_server import StatusServer, parse_address  # only who wants it loads it

    address = parse_address(watching.metrics, remote=watching.allow_remote)
    metrics = Metrics(LIVE_FAMILIES if live else FAMILIES)
    server = StatusServer(observer, address, stuck_after=watching.stuck_after_s, metrics=metrics)
    observer.shown_at = server.url
    try:
        yield observer
    finally:
        server.close()
