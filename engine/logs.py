"""What a process writes into the log, as text or as JSON lines: one place for the supervisor and its children.

All processes of a run append to one file. Each record is one write, so that their lines do not mix.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

TEXT, JSON = "text", "json"
LOG_FORMATS = (TEXT, JSON)

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What steers a terminal, ends a line, or turns its direction; and halves of characters. File names may hold them."""


def printable(text: str, *, keep: str = "") -> str:
    """A text in one line that does nothing to a terminal.

    Args:
        text: what may quote names of files.
        keep: characters that stay as they are all the same.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


@dataclass
class _Work:
    """What this process is at. One thing at a time, so its libraries' threads are at it too."""

    video: str | None = None
    attempt: int | None = None


_work = _Work()


@contextlib.contextmanager
def about(video: str, attempt: int) -> Iterator[None]:
    """Whatever this process logs inside is about this video, in this attempt."""
    _work.video, _work.attempt = video, attempt
    try:
        yield
    finally:
        _work.video = _work.attempt = None


class JsonLine(logging.Formatter):
    """A record as one line of JSON.

    Its keys are ``time`` (ISO 8601, UTC), ``level``, ``process``, ``logger`` and ``message``; where there are any,
    ``video`` and ``attempt`` (given as ``extra`` or by ``about``), and ``traceback``.

    Args:
        process: name of this process.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            "video": getattr(record, "video", _work.video),
            "attempt": getattr(record, "attempt", _work.attempt),
            "traceback": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps({key: value for key, value in line.items() if value is not None})


class TextLine(logging.Formatter):
    """A record as one line of text; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's)
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return printable(super().formatException(ei), keep="\n")


class WholeLines(logging.Handler):
    """Writes each record by one call into a descriptor that several processes append to."""

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self._fd = fd
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self._fd, self.format(record).encode(errors="backslashreplace") + b"\n")
        except OSError:  # its disk is full, which whoever writes results says
            return
        except Exception:  # as every handler does: a record that cannot be written stops nobody
            self.handleError(record)


def log_child(fd: int, *, process: str, form: str) -> None:
    """Send what this child process and its libraries log, from warnings on, to a descriptor.

    Args:
        fd: the open log.
        process: the child's name.
        form: one of ``LOG_FORMATS``.
    """
    if form == JSON:
        formatter: logging.Formatter = JsonLine(process)
        logging.captureWarnings(capture=True)
        threading.excepthook = _log_thread
    else:
        formatter = TextLine(f"%(asctime)s %(levelname)s {process}: %(message)s")
    logging.getLogger().addHandler(WholeLines(fd, formatter))


@contextlib.contextmanager
def log_supervisor(path: Path, *, form: str) -> Iterator[None]:
    """Append what the supervisor logs to a file while inside: of clipmux everything, of libraries their warnings.

    Args:
        path: the log.
        form: one of ``LOG_FORMATS``.
    """
    if form == JSON:
        formatter: logging.Formatter = JsonLine("supervisor")
    else:
        formatter = TextLine("%(asctime)s %(levelname)s %(name)s: %(message)s")
    ours, root = logging.getLogger("clipmux"), logging.getLogger()
    with path.open("ab", buffering=0) as file:
        handler = WholeLines(file.fileno(), formatter)
        ours.setLevel(logging.INFO)
        propagate, ours.propagate = ours.propagate, False
        ours.addHandler(handler)
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)
            ours.removeHandler(handler)
            ours.propagate = propagate


def _log_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "unknown"
    trace = (args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    logging.getLogger(__name__).error("thread '%s' ended by an error", name, exc_info=trace)
