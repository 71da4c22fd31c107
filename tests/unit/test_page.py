"""The parts of the page process: what a slow or silent client costs, and foreign messages of the feed."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import MutableMapping
from typing import Any

import msgpack
import pytest

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

from clipmux.workers.page import app as app_module  # noqa: E402
from clipmux.workers.page import process  # noqa: E402
from clipmux.workers.page.app import FeedResponse, make_app  # noqa: E402
from clipmux.workers.page.board import EVENTS_KEPT, Board  # noqa: E402


def snapshot(*names: str) -> tuple[bytes, bytes]:
    return b"snapshot", json.dumps({"at": 1.0, "totals": {}, "streams": [{"name": name} for name in names]}).encode()


def event(number: int) -> tuple[bytes, bytes]:
    return b"event", json.dumps({"id": number, "stream": "door"}).encode()


async def answered(board: Board, send: Any) -> None:
    gone = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    await FeedResponse(board)({}, receive, send)


def test_a_slow_client_misses_snapshots_but_no_event_and_nothing_waits_for_it() -> None:
    async def run() -> bytes:
        board = Board()
        board.attach(asyncio.get_running_loop())
        sent: list[bytes] = []
        go_on = asyncio.Event()

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message.get("body", b""))
            if b"snapshot" in sent[-1]:
                await go_on.wait()

        board.take(*snapshot("first"))
        answering = asyncio.ensure_future(answered(board, send))
        while not any(b"first" in part for part in sent):
            await asyncio.sleep(0.01)
        for number in range(1, 100):  # meanwhile
            board.take(*event(number))
            board.take(*snapshot(f"number {number}"))
        await asyncio.sleep(0.01)
        go_on.set()
        while not any(b"number 99" in part for part in sent):
            await asyncio.sleep(0.01)
        board.close()
        await asyncio.wait_for(answering, 10)
        assert board.listeners == 0
        return b"".join(sent)

    sent = asyncio.run(run())
    assert sent.count(b"event: snapshot") == 2
    assert sent.count(b"event: happened") == 99


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "SLOW_S", 0.05)

    async def run() -> None:
        board = Board()
        board.attach(asyncio.get_running_loop())

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        await asyncio.wait_for(answered(board, send), 10)
        assert board.listeners == 0

    asyncio.run(run())


def test_a_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "REQUEST_S", 0.1)

    async def run() -> None:
        config = uvicorn.Config(
            make_app(Board()), http=process.impatient_protocol(), lifespan="off", log_config=None, ws="none"
        )
        server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        place = listening.getsockname()
        for begun in (b"", b"GET / HT", b"GET /api/streams HTTP/1.1\r\nHost: x\r\n\r\nGET"):
            reader, writer = await asyncio.open_connection(*place[:2])
            writer.write(begun)
            answer = await asyncio.wait_for(reader.read(), 10)
            assert answer.startswith(b"HTTP/1.1 200") == (b"Host" in begun)
            writer.close()
            await writer.wait_closed()
        server.should_exit = True
        await serving

    asyncio.run(run())


def test_foreign_messages_of_the_feed_are_left_out() -> None:
    board = Board()
    board.take(*snapshot("door"))
    before = board.snapshot
    for frames in (
        (),
        (b"snapshot",),
        (b"snapshot", b"not JSON"),
        (b"snapshot", b"[]"),
        (b"event", b"{}"),
        (b"event", b"[" * 100_000),
        (b"history", b"{}"),
        (b"thumb", b"\xc1"),
        (b"thumb", msgpack.packb(["door", "text"])),
        (b"thumb", msgpack.packb(["door", bytes(1 << 17)])),
        (b"thumb", msgpack.packb(["nobody", b"\xff\xd8"])),
        (b"other", b""),
    ):
        board.take(*frames)
    assert (board.snapshot, board.thumbnails, list(board.events)) == (before, {}, [])


def test_what_is_kept_is_bounded_and_goes_with_its_stream() -> None:
    board = Board()
    board.take(*snapshot("door", "yard"))
    for name in ("door", "yard"):
        board.take(b"thumb", msgpack.packb([name, b"\xff\xd8"]))
    for number in range(2 * EVENTS_KEPT):
        board.take(*event(number))
    board.take(*event(3))  # again
    assert [kept["id"] for kept in board.events] == list(range(EVENTS_KEPT, 2 * EVENTS_KEPT))
    board.take(*snapshot("yard"))
    assert set(board.thumbnails) == {"yard"}
