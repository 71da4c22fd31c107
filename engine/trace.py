"""A trace of every process in one file, which Perfetto and Chrome show: where the time of each stage and video goes.

It is Chrome's trace format, as a JSON array with an event a line. The supervisor opens the file, its children inherit
the descriptor, and all append: each keeps a second's events at most and writes them, whole lines, by one call. So
nothing has to be merged, what a crash costs is the last second of the process that crashed, and the array may lack its
end: viewers of the format take it without. It costs little time, since no event is about one frame or one clip.

Times are ``time.monotonic()``, which all processes of one host share; microseconds in the file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ClipmuxError, UsageError
from .stages import Stages

log = logging.getLogger(__name__)

FILE_MOST = 1 << 30
"""Bytes from which on no process writes any more events."""
WRITE_AT = 1 << 15
WRITE_EVERY_S = 1.0
"""Events are written when they are so many bytes, or so old."""
LAP_S = 0.1
"""What one span of ``Laps`` stands for at least."""


class Trace:
    """The events of one process.

    Args:
        fd: the file, opened to append; -1 to keep nothing.
        process: name of this process.
        tracks: names of what goes on side by side in it.
        most: bytes that the file may have.
    """

    def __init__(self, fd: int, process: str, *, tracks: Sequence[str] = ("main",), most: int = FILE_MOST) -> None:
        self.on = fd >= 0
        self._fd = fd
        self._most = most
        self._pid = os.getpid()
        self._lines: list[str] = []
        self._size = 0
        self._written_at = time.monotonic()
        self._add({"name": "process_name", "ph": "M", "args": {"name": process}})
        for number, track in enumerate(tracks):
            self._add({"name": "thread_name", "ph": "M", "args": {"name": track}}, number)

    def span(self, name: str, start: float, end: float, *, track: int = 0, **args: Any) -> None:
        """Something that took from ``start`` to ``end``; on one track spans follow one another or nest."""
        if self.on:
            at = _us(start)
            self._add({"name": name, "ph": "X", "ts": at, "dur": max(0, _us(end) - at), "args": args}, track)

    def mark(self, name: str, **args: Any) -> None:
        """Something that happened now."""
        if self.on:
            self._add({"name": name, "ph": "i", "s": "p", "ts": _us(time.monotonic()), "args": args})

    def step(self, phase: str, name: str, number: int, **args: Any) -> None:
        """A video begins (``b``), begins anew (``n``) or ends (``e``) now; others may be under way at the same time."""
        if self.on:
            ids = {"cat": "video", "id2": {"local": f"{number:#x}"}}
            self._add({"name": name, "ph": phase, **ids, "ts": _us(time.monotonic()), "args": args})

    def tick(self) -> None:
        """Write what is old enough; for a process that may have nothing to add for long."""
        if self._lines and time.monotonic() - self._written_at >= WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Write all events that are kept. A file that is full, or on a full disk, ends the trace and nothing else."""
        if not self._lines:
            return
        lines = "".join(self._lines).encode()
        self._lines.clear()
        self._size = 0
        self._written_at = time.monotonic()
        try:
            room = self._most - os.fstat(self._fd).st_size
            if room < len(lines):
                self._stop(f"the file has reached {self._most >> 20} MiB")
            elif os.write(self._fd, lines) < len(lines):
                self._stop("the file cannot grow")
        except OSError as error:
            self._stop(str(error.strerror))

    def _add(self, event: Mapping[str, Any], track: int = 0) -> None:
        if not self.on:
            return
        line = json.dumps({**event, "pid": self._pid, "tid": track + 1}, separators=(",", ":")) + ",\n"
        self._lines.append(line)
        self._size += len(line)
        if self._size >= WRITE_AT:
            self.write()
        else:
            self.tick()

    def _stop(self, why: str) -> None:
        self.on = False
        log.warning("the trace ends here: %s", why)


class Laps:
    """What a thread was busy with, as a few spans a second however often it changes between stages.

    The spans of a lap lie end to end from its beginning, as long as each stage took in it altogether: their lengths are
    true, their order inside the lap is not.

    Args:
        trace: where to.
        stages: whose seconds to tell.
        names: those that are this thread's own.
    """

    def __init__(self, trace: Trace, stages: Stages, names: Sequence[str]) -> None:
        self._trace = trace
        self._stages = stages
        self._names = names
        self.begin()

    def begin(self) -> None:
        """A lap begins now; what was before is not told."""
        self._began = time.monotonic()
        self._before = dict(self._stages.seconds)

    def lap(self, *, last: bool = False) -> None:
        """End the lap if it is long enough, or the last one, and begin another."""
        if not self._trace.on:
            return
        now = time.monotonic()
        if not last and now - self._began < LAP_S:
            return
        start = self._began
        for name in self._names:
            end = min(now, start + self._stages.seconds.get(name, 0.0) - self._before.get(name, 0.0))
            if end > start:
                self._trace.span(name, start, end)
                start = end
        self.begin()


class TraceFile:
    """The file of a trace, as the supervisor opens and ends it.

    Raises:
        UsageError: there is such a file already, or it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise UsageError(f"--trace is '{path}', which exists: give another file, or remove it") from None
        except OSError as error:
            raise UsageError(
                f"--trace is '{path}', which cannot be written ({error.strerror}): give a file in a folder that exists"
            ) from None
        try:
            os.write(self.fd, b"[\n")
        except OSError as error:
            os.close(self.fd)
            raise ClipmuxError(
                f"'{path}' cannot be written ({error.strerror}): make room for it, or leave out --trace"
            ) from None

    def close(self) -> None:
        """End the array; whoever else writes to it has ended."""
        end = {"name": "end", "ph": "i", "s": "g", "ts": _us(time.monotonic()), "pid": os.getpid(), "tid": 1}
        with contextlib.suppress(OSError):  # a full disk; it can be read without its end too
            os.write(self.fd, json.dumps(end, separators=(",", ":")).encode() + b"\n]\n")
        os.close(self.fd)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
