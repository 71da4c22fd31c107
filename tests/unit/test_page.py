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

from clipmux.engine.errors import UsageError  # noqa: E402
from clipmux.workers.page import app as app_module  # noqa: E402
from clipmux.workers.page import process  # noqa: E402
from clipmux.workers.page.app import FeedResponse, make_app  # noqa: E402
from clipmux.workers.page.board import EVENTS_KEPT, Board  # noqa: E402
from clipmux.workers.page.guard import Guard, Http  # noqa: E402


def snapshot(*names: str) -> tuple[bytes, bytes]:
    return b"snapshot", json.dumps({"at": 1.0, "totals": {}, "streams": [{"name": name} for name in names]}).encode()


def event(number: int) -> tuple[bytes, bytes]:
    return b"event", json.dumps({"id": number, "stream": "door"}).encode()


def history(*numbers: int) -> tuple[bytes, bytes]:
    events = [{"id": number, "stream": "door"} for number in numbers]
    return b"history", json.dumps({"at": 1.0, "timelines": {}, "events": events}).encode()


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


def test_events_of_a_watcher_whose_clock_was_set_back() -> None:
    async def run() -> list[int]:
        board = Board()
        board.attach(asyncio.get_running_loop())
        sent: list[bytes] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message.get("body", b""))

        async def told(count: int) -> None:
            while sum(b"happened" in part for part in sent) < count:
                await asyncio.sleep(0.01)

        answering = asyncio.ensure_future(answered(board, send))
        board.take(*event(1000))
        board.take(*event(1001))
        await asyncio.wait_for(told(2), 10)
        board.take(*history())  # another watcher; nothing has happened yet
        board.take(*event(501))
        board.take(*history(501))
        board.take(*history(501))
        board.take(*event(502))
        await asyncio.wait_for(told(4), 10)
        assert [one["id"] for one in board.events] == [501, 502]
        assert [[one["id"] for one in board.events_after(number)] for number in (0, 501, 502, 1001)] == [
            [501, 502],
            [502],
            [],
            [501, 502],
        ]
        board.close()
        await asyncio.wait_for(answering, 10)
        return [json.loads(part.partition(b"data: ")[2])["id"] for part in sent if b"happened" in part]

    assert asyncio.run(run()) == [1000, 1001, 501, 502]


def asked(guard: Guard, query: str = "", **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    given = {"host": "localhost", **headers}
    scope = {
        "type": "http",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        "query_string": query.encode(),
        "raw_path": b"/",
    }
    said: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    asyncio.run(guard(scope, receive, send))
    return said[0]["status"], {name.decode(): value.decode() for name, value in said[0]["headers"]}


def guarded(token: str) -> Guard:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return Guard(answer, Http("127.0.0.1", 80, token), 80)


@pytest.mark.parametrize(
    "foreign", ['prefs={"a":1}', "foo[bar]=1", "a=b c", "no-value", '"', "clipmux_80=wrong", "\xe4=\xf6", "=", ""]
)
def test_cookies_of_other_programs_of_this_host_do_not_hide_ours(foreign: str) -> None:
    guard = guarded("correct-horse-battery")
    ours = asked(guard, "token=correct-horse-battery")[1]["set-cookie"].partition(";")[0]
    for cookies in (f"{foreign}; {ours}", f"{ours}; {foreign}", f"{foreign};{ours};{foreign}"):
        assert asked(guard, cookie=cookies)[0] == 200, cookies
    for cookies in (
        foreign,
        f"{foreign}; x{ours}",
        f"{foreign}; {ours}x",
        f"{foreign}={ours}",
        f"clipmux_80; {foreign}",
    ):
        assert asked(guard, cookie=cookies)[0] == 401, cookies


@pytest.mark.parametrize("token", ["correct+horse+battery", "correct=horse?battery;", "++++++++++++++++"])
def test_a_token_is_known_in_an_address_as_it_is(token: str) -> None:
    guard = guarded(token)
    for query in (f"token={token}", f"token={token.replace('+', '%2B')}"):
        assert asked(guard, query)[0] == 303, query
    for query in (f"token={token}+", f"token={token.replace('+', '-')}-", f"token={token}&token={token}", "token="):
        assert asked(guard, query)[0] == 401, query
    assert asked(guard, authorization=f"Bearer {token}")[0] == 200


@pytest.mark.parametrize("space", " \t\n\u00a0\u2003")
def test_no_token_has_spaces(space: str) -> None:
    with pytest.raises(UsageError, match="--token is too weak"):
        Http("127.0.0.1", 80, f"correct{space}horse{space}battery")
