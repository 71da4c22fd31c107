"""The last of everything that the watcher has published, for all pages that are shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import msgpack

from clipmux.engine.messages import THUMBNAIL_MOST

log = logging.getLogger(__name__)

EVENTS_KEPT = 200
SLOW_S = 10.0
"""A browser that takes nothing for so long is cut off."""
STILL_HERE_S = 10.0
NOTHING = b'{"at": 0, "totals": {"streams": 0, "live": 0, "clips": 0, "dropped": 0, "events": 0}, "streams": []}'


class Board:
    """The last of everything that the watcher has published, and who waits for news of it.

    ``take`` and ``close`` are for the thread that reads the feed, all else for the event loop.
    """

    def __init__(self) -> None:
        self.snapshot = NOTHING
        self.names: frozenset[str] = frozenset()
        self.timelines: dict[str, list[Any]] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self.thumbnails: dict[str, bytes] = {}
        self.version = self.history_version = 0
        self.closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: set[asyncio.Event] = set()

    def take(self, *frames: bytes) -> None:
        """A message of the feed; one that is not as it should be is left out and logged."""
        try:
            topic, body = frames
            if topic == b"thumb":
                name, jpeg = msgpack.unpackb(body)
                if isinstance(name, str) and isinstance(jpeg, bytes) and len(jpeg) <= THUMBNAIL_MOST:
                    self._call(self._thumbnail, name, jpeg)
            elif topic == b"snapshot":
                self._call(self._snapshot, body, frozenset(stream["name"] for stream in json.loads(body)["streams"]))
            elif topic == b"event":
                self._call(self._happened, [_numbered(json.loads(body))])
            elif topic == b"history":
                content = json.loads(body)
                self._call(self._history, dict(content["timelines"]), [_numbered(one) for one in content["events"]])
        except Exception as error:  # a page must not end because of one message
            log.warning("a message of the feed was refused: %s", error)

    def close(self) -> None:
        """No news will come."""
        self.closed = True
        self._call(self._tell)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on all happens in this loop."""
        self._loop = loop

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Whoever is in here is woken by news."""
        news = asyncio.Event()
        self._news.add(news)
        try:
            yield news
        finally:
            self._news.discard(news)

    @property
    def listeners(self) -> int:
        return len(self._news)

    def events_after(self, number: int) -> list[dict[str, Any]]:
        """Events above a number; all of them if it is above all: the clock was set back, and a watcher began anew."""
        if self.events and self.events[-1]["id"] < number:
            return list(self.events)
        return [event for event in self.events if event["id"] > number]

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """In the event loop, once there is one; until then nobody else looks."""
        if self._loop is None:
            function(*arguments)
            return
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    def _snapshot(self, body: bytes, names: frozenset[str]) -> None:
        self.snapshot, self.names = body, names
        for name in self.thumbnails.keys() - names:
            del self.thumbnails[name]
        self.version += 1
        self._tell()

    def _thumbnail(self, name: str, jpeg: bytes) -> None:
        if name in self.names:
            self.thumbnails[name] = jpeg

    def _happened(self, events: list[dict[str, Any]]) -> None:
        known = self.events[-1]["id"] if self.events else 0
        self.events.extend(event for event in events if event["id"] > known)
        self._tell()

    def _history(self, timelines: dict[str, list[Any]], events: list[dict[str, Any]]) -> None:
        self.timelines = timelines
        self.history_version += 1
        if events and self.events and events[-1]["id"] < self.events[-1]["id"]:
            self.events.clear()  # of a watcher before, whose clock was ahead: nothing new would be above them
        self._happened(events)

    def _tell(self) -> None:
        for news in self._news:
            news.set()


async def news_of(board: Board, gone: asyncio.Future[None]) -> AsyncGenerator[bytes, None]:
    """What one client is sent: the newest of everything, however many it has missed; ends when it is gone."""
    with board.listening() as news:
        yield b"retry: 2000\n\n"
        version = history_version = last_event = 0
        while not gone.done() and not board.closed:
            news.clear()
            for event in board.events_after(last_event):
                last_event = event["id"]
                yield _message("happened", json.dumps(event, ensure_ascii=False).encode())
            if version != board.version:
                version = board.version
                yield _message("snapshot", board.snapshot)
            if history_version != board.history_version:
                tail = None if history_version == 0 else 3
                history_version = board.history_version
                timelines = {name: line[-tail:] if tail else line for name, line in board.timelines.items()}
                yield _message("history", json.dumps(timelines, ensure_ascii=False).encode())
            waiting = asyncio.ensure_future(news.wait())
            done, _ = await asyncio.wait((waiting, gone), timeout=STILL_HERE_S, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not done:
                yield b": still here\n\n"


def _numbered(event: dict[str, Any]) -> dict[str, Any]:
    if type(event["id"]) is not int:
        raise TypeError("an event's number is no whole number")
    return event


def _message(kind: str, body: bytes) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"  # JSON has no line ends of its own
