"""What the supervisor tells of its engine, for whoever looks on: metrics, health, a trace.

Everything here is told by the supervisor's own thread, which a few times a second leaves a ``Look`` that never changes
again. Others only ever read the last one: no lock, no message, nothing that they could hold up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .children import DECODER, INFERENCE, Child, describe_exit
from .logs import TEXT
from .messages import Beat, Control, Hello
from .prediction import Prediction
from .totals import NOW, Key, Totals
from .trace import Trace, TraceFile

LOOK_EVERY_S = 0.2
"""Children tell twice a second; the supervisor's loop may turn far more often."""


@dataclass(frozen=True)
class ProcessLook:
    """One child process.

    Args:
        role: what it does.
        name: of this process alone.
        pid: the system's number for it.
        at_work: it has something to do.
        progress_at: when it last showed progress, or started.
        now: how things are in it, as its last beat has them.
    """

    role: str
    name: str
    pid: int
    at_work: bool
    progress_at: float
    now: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """An engine at one moment; ``time.monotonic()`` seconds.

    Args:
        at: when.
        processes: those that live.
        roles: every role that ever had one.
        unfinished: something was begun and has no outcome yet.
        in_progress: how many videos were handed out and have no outcome.
        videos: how many have one, by ``classified`` and ``failed``.
        failures: the failed ones by the stage that they failed in.
        deaths: processes that ended other than by an order to stop, by role.
        sums: see ``Totals.sums``.
        about: what inference chose.
        apart: roles whose processes may be silent or away for reasons of others: cameras.
        streams: by name, what is known of each live stream: ``number``, ``state``, ``frames``, ``clips``, ``dropped``.
    """

    at: float
    processes: tuple[ProcessLook, ...] = ()
    roles: tuple[str, ...] = ()
    unfinished: bool = False
    in_progress: int = 0
    videos: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    deaths: Mapping[str, int] = field(default_factory=dict)
    sums: Mapping[str, Mapping[Key, float]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def total(self, role: str, name: str) -> float:
        """A count of a role's beats, summed over its processes."""
        return self.sums.get(role, {}).get((name,), 0.0)

    def parts(self, role: str, name: str) -> dict[str, float]:
        """A count of a role's beats that has parts, summed over its processes: ``busy_s`` by stage."""
        return {key[1]: value for key, value in self.sums.get(role, {}).items() if len(key) == 2 and key[0] == name}


class Observer:
    """Keeps what it is told; by default for nobody.

    Args:
        log_format: how the processes of the engine write their log: one of ``logs.LOG_FORMATS``.
        trace: file to write a trace to.

    Attributes:
        look: the last one; None until the supervisor has been round its loop.
        shown_at: URL of a server that shows it; empty where there is none.
    """

    def __init__(self, *, log_format: str = TEXT, trace: Path | None = None) -> None:
        self.log_format = log_format
        self.look: Look | None = None
        self.shown_at = ""
        self._trace_path = trace
        self._trace_file: TraceFile | None = None
        self._trace_begun = False
        self._trace = Trace(-1, "")
        self._totals = Totals()
        self._progress: dict[str, float] = {}
        self._beats: dict[str, dict[str, Any]] = {}
        self._roles: dict[str, None] = {}
        self._in_progress: set[int] = set()
        self._videos = {"classified": 0, "failed": 0}
        self._failures: dict[str, int] = {}
        self._deaths: dict[str, int] = {}
        self._about: dict[str, Any] = {}

    @property
    def trace_fd(self) -> int:
        """For children to inherit; -1 where there is no trace."""
        return -1 if self._trace_file is None else self._trace_file.fd

    # -- of processes --------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The engine opens; no child has been started.

        Raises:
            UsageError: the trace cannot be written.
        """
        if self._trace_path is not None:
            self._trace_file = TraceFile(self._trace_path)
            self._trace_begun = True
            self._trace = Trace(self._trace_file.fd, "supervisor")

    @property
    def traces(self) -> bool:
        """A trace was asked for."""
        return self._trace_path is not None

    def heard(self, child: Child, message: Control) -> None:
        """A child said something."""
        now = time.monotonic()
        if isinstance(message, Beat):
            if _progressed(self._beats.get(child.name, {}), message.counts):
                self._progress[child.name] = now
            self._beats[child.name] = message.counts
            self._totals.note(child.name, child.role, message.counts)
        else:
            self._progress[child.name] = now
            if isinstance(message, Hello) and child.role == INFERENCE:
                self._about = message.about

    def ended(self, child: Child) -> None:
        """A child has ended and is reaped."""
        self._totals.ended(child.name)
        self._progress.pop(child.name, None)
        self._beats.pop(child.name, None)
        if not child.stopping:
            self._deaths[child.role] = self._deaths.get(child.role, 0) + 1
            self._trace.mark(f"{child.name} {child.last_words or describe_exit(child.status)}")

    def turned(
        self,
        children: Iterable[Child],
        *,
        unfinished: bool,
        apart: frozenset[str] = frozenset(),
        streams: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
    ) -> None:
        """The supervisor has been round its loop once more.

        Args:
            children: those that live.
            unfinished: see ``Look``.
            apart: see ``Look``.
            streams: what gives those of ``Look``.
        """
        self._trace.tick()
        now = time.monotonic()
        if self.look is not None and now - self.look.at < LOOK_EVERY_S:
            return
        processes = tuple(self._see(child, unfinished) for child in children)
        self._roles.update(dict.fromkeys(process.role for process in processes))
        self.look = Look(
            at=now,
            processes=processes,
            roles=tuple(self._roles),
            unfinished=unfinished,
            in_progress=len(self._in_progress),
            videos=dict(self._videos),
            failures=dict(self._failures),
            deaths=dict(self._deaths),
            sums=self._totals.sums(),
            about=self._about,
            apart=apart,
            streams=streams(),
        )

    def closed(self) -> None:
        """Every child has ended."""
        if self._trace_file is not None:
            self._trace.write()
            self._trace_file.close()
            self._trace_file, self._trace = None, Trace(-1, "")

    def discard(self) -> None:
        """Nothing was started after all: remove the trace that was begun."""
        if self._trace_path is not None and self._trace_begun:
            self._trace_path.unlink(missing_ok=True)

    # -- of videos -----------------------------------------------------------------------------------------------------

    def handed(self, child: Child, number: int, attempt: int, video_id: str) -> None:
        """A video was handed to a decoder."""
        self._progress[child.name] = time.monotonic()  # it had nothing to do until now
        self._trace.step("n" if number in self._in_progress else "b", video_id, number, attempt=attempt)
        self._in_progress.add(number)

    def finished(self, number: int, prediction: Prediction) -> None:
        """A video has its outcome."""
        self._trace.step("e", prediction.video_id, number, attempt=prediction.attempt)
        self._in_progress.discard(number)
        if prediction.error is None:
            self._videos["classified"] += 1
        else:
            self._videos["failed"] += 1
            stage = prediction.error.stage
            self._failures[stage] = self._failures.get(stage, 0) + 1

    def _see(self, child: Child, unfinished: bool) -> ProcessLook:
        return ProcessLook(
            role=child.role,
            name=child.name,
            pid=child.pid,
            at_work=child.assigned is not None if child.role == DECODER else unfinished,
            progress_at=self._progress.get(child.name, child.started),
            now=self._beats.get(child.name, {}).get(NOW, {}),
        )


def _progressed(before: Mapping[str, Any], counts: Mapping[str, Any]) -> bool:
    """Whether a beat shows progress. A device that holds clips and gives none back makes none, alive as it is."""
    held, holds = (beat.get(NOW, {}).get("in_device", 0) for beat in (before, counts))
    return not (held and holds and before.get("clips") == counts.get("clips"))
