"""Live streams for a program that awaits: a supervisor in a thread of its own, and its events in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from .config import EngineConfig
from .inference_elsewhere import kind_of_watch
from .live import EVENTS_MOST, LiveSupervisor
from .model import ModelFolder
from .processes import Interrupted
from .streams import LiveConfig, StreamConfig


async def watch(
    config: EngineConfig, live: LiveConfig, model: ModelFolder, streams: Sequence[StreamConfig]
) -> AsyncGenerator[dict[str, Any], None]:
    """Events of streams as they happen, until all have ended; closing or cancelling this stops all processes first.

    Raises:
        ClipmuxError: streams cannot be watched, or no longer.
    """
    with tempfile.TemporaryDirectory(prefix="clipmux-log-") as scratch:
        supervisor = kind_of_watch(config)(config, live, model, streams, log_file=Path(scratch) / "live.log")
        events = _Events()
        thread = threading.Thread(target=_run, args=(supervisor, events), name="clipmux-live")
        thread.start()
        try:
            while (event := await events.next()) is not None:
                yield event
        finally:
            supervisor.interrupt()
            await _joined(thread)


def _run(supervisor: LiveSupervisor, events: _Events) -> None:
    error: BaseException | None = None
    try:
        with contextlib.suppress(Interrupted):
            supervisor.start()
            for event in supervisor.watch():
                events.put(event)
    except BaseException as caught:  # whatever it is, it belongs to whoever awaits events
        error = caught
    try:
        supervisor.stop()
        for event in supervisor.take_events():
            events.put(event)
    except BaseException as caught:
        error = error or caught
    finally:
        events.end(error)


async def _joined(thread: threading.Thread) -> None:
    """The thread has ended; being cancelled meanwhile does not leave it behind."""
    waiting = asyncio.ensure_future(asyncio.to_thread(thread.join))
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class _Events:
    """From the thread to the event loop; of too many that nobody takes, the oldest go."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._waiting: deque[dict[str, Any]] = deque(maxlen=EVENTS_MOST)
        self._ended = False
        self._error: BaseException | None = None

    def put(self, event: dict[str, Any]) -> None:
        self._waiting.append(event)
        self._tell()

    def end(self, error: BaseException | None) -> None:
        """No more will come; for the thread."""
        self._error, self._ended = error, True
        self._tell()

    async def next(self) -> dict[str, Any] | None:
        """The next event, or None when there are no more."""
        while not self._waiting:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._news.clear()
            if not self._waiting and not self._ended:
                await self._news.wait()
        return self._waiting.popleft()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._news.set)
