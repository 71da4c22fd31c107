"""Events in an open page, in a real Chromium, when clipmux begins anew after the clock was set back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from chromium import Browser, browser

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

from clipmux.workers.page.app import make_app  # noqa: E402
from clipmux.workers.page.board import Board  # noqa: E402


def event(number: int, label: str) -> dict[str, Any]:
    return {
        "id": number,
        "stream": "door",
        "event": "started",
        "label": label,
        "start": "2026-01-01T00:00:00Z",
        "end": None,
        "start_s": float(number),
        "end_s": None,
        "peak": 1.0,
        "connection": 1,
    }


def tell(board: Board, *known: dict[str, Any]) -> None:
    """What a watcher tells: each event, and all of them now and then."""
    for one in known:
        board.take(b"event", json.dumps(one).encode())
    board.take(b"history", json.dumps({"at": 1.0, "timelines": {}, "events": known}).encode())


@contextlib.contextmanager
def served(board: Board, port: int) -> Iterator[int]:
    server = uvicorn.Server(
        uvicorn.Config(make_app(board), lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1)
    )
    listening = socket.create_server(("127.0.0.1", port))

    async def serve() -> None:
        board.attach(asyncio.get_running_loop())
        await server.serve(sockets=[listening])

    serving = threading.Thread(target=asyncio.run, args=(serve(),))
    serving.start()
    try:
        yield listening.getsockname()[1]
    finally:
        board.close()
        server.should_exit = True
        serving.join()


def shows(page: Browser, *labels: str) -> None:
    deadline = time.monotonic() + 20
    while (shown := page.texts("#events b")) != list(labels):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as made:
        yield made


def test_events_of_a_watcher_whose_clock_was_set_back(page: Browser) -> None:
    """The page's process stays, and so does the connection."""
    board = Board()
    with served(board, 0) as port:
        page.open(f"http://127.0.0.1:{port}/")
        tell(board, event(1000, "a"), event(1001, "b"))
        shows(page, "b", "a")
        tell(board)  # another watcher
        tell(board, event(501, "c"))
        shows(page, "c", "b", "a")
        tell(board, event(501, "c"), event(502, "d"))
        shows(page, "d", "c", "b", "a")


def test_a_page_that_comes_back(page: Browser) -> None:
    """To the same watcher, whose old events are not shown once more; then to one whose clock was set back."""
    board = Board()
    known = [event(1000, "a"), event(1001, "b")]
    with served(board, 0) as port:
        page.open(f"http://127.0.0.1:{port}/")
        tell(board, *known)
        shows(page, "b", "a")
    page.run("document.querySelector('#events').lastElementChild.remove()")  # as one of more than it keeps
    same = Board()
    tell(same, *known)
    with served(same, port):
        comes_back(same)
        tell(same, *known)
        known.append(event(1002, "c"))
        tell(same, *known)
        shows(page, "c", "b")
    later = Board()
    tell(later, event(7, "d"), event(8, "e"))
    with served(later, port):
        shows(page, "e", "d", "c", "b")
    last = Board()
    tell(last)  # nothing has happened yet
    with served(last, port):
        comes_back(last)
        tell(last, event(3, "f"))
        shows(page, "f", "e", "d", "c", "b")


def comes_back(board: Board) -> None:
    deadline = time.monotonic() + 20
    while not board.listeners:
        assert time.monotonic() < deadline
        time.sleep(0.05)
