"""The status server on real sockets: it answers, and whoever connects can hold up nothing but it, and not for long."""

from __future__ import annotations

import gc
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from clipmux.engine.errors import UsageError
from clipmux.engine.observer import Look, Observer, ProcessLook
from clipmux.engine.status_server import CONNECTIONS, HEAD_MOST, PATIENCE_S, StatusServer, parse_address


@pytest.fixture
def observer() -> Observer:
    observer = Observer()
    observer.look = Look(time.monotonic(), videos={"classified": 7, "failed": 0})
    return observer


@pytest.fixture
def server(observer: Observer) -> Iterator[StatusServer]:
    server = StatusServer(observer, ("127.0.0.1", 0), stuck_after=30.0)
    yield server
    server.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "status"]


def connect(server: StatusServer) -> socket.socket:
    url = urlsplit(server.url)
    return socket.create_connection((url.hostname, url.port), timeout=4 * PATIENCE_S)


def ask(server: StatusServer, request: bytes) -> bytes:
    with connect(server) as connection:
        connection.sendall(request)
        answer = b""
        while more := connection.recv(65536):
            answer += more
        return answer


def get(server: StatusServer, page: str) -> tuple[int, bytes]:
    head, _, body = ask(server, f"GET {page} HTTP/1.1\r\nHost: localhost:9108\r\n\r\n".encode()).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return int(head.split()[1]), body


def test_both_pages_and_nothing_else(server: StatusServer) -> None:
    status, page = get(server, "/metrics")
    assert status == 200
    assert b'clipmux_videos_total{outcome="classified"} 7.0' in page
    status, page = get(server, "/healthz?verbose")
    assert (status, json.loads(page)["status"]) == (200, "ok")
    assert get(server, "/")[0] == 404
    assert get(server, "/../etc/passwd")[0] == 404
    assert ask(server, b"HEAD /metrics HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")


def test_a_stuck_stage_turns_health_red_by_name(server: StatusServer, observer: Observer) -> None:
    inference = ProcessLook("inference", "inference-1", 1, True, time.monotonic() - 60)
    observer.look = Look(time.monotonic(), (inference,), ("inference",), unfinished=True)
    status, page = get(server, "/healthz")
    assert (status, json.loads(page)["stuck"]) == (503, ["inference"])


def test_before_the_first_look_nothing_is_wrong(server: StatusServer, observer: Observer) -> None:
    observer.look = None
    assert get(server, "/metrics") == (200, b"")
    assert json.loads(get(server, "/healthz")[1])["status"] == "starting"


def test_a_page_is_not_made_more_often_than_children_tell(server: StatusServer, observer: Observer) -> None:
    pages = {get(server, "/metrics")[1] for _ in range(5)}
    observer.look = Look(time.monotonic(), videos={"classified": 8, "failed": 0})
    deadline = time.monotonic() + 10
    while get(server, "/metrics")[1] in pages and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b'outcome="classified"} 8.0' in get(server, "/metrics")[1]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"GET /metrics", b"400"),
        (b"GET /metrics HTTP/9", b"400"),
        (b"\xff\xfe\x00 \x80 \x81", b"400"),
        (b"", b"400"),
        (b"GET " + b"/" * 5000 + b" HTTP/1.1", b"404"),
    ],
)
def test_bad_requests_are_answered_in_a_word(server: StatusServer, request_line: bytes, status: bytes) -> None:
    assert ask(server, request_line + b"\r\n\r\n").split()[1] == status


@pytest.mark.parametrize("host", [b"127.0.0.1:9108", b"127.0.0.1", b"LOCALHOST", b"[::1]:9108"])
def test_a_host_that_is_this_machine_is_answered(server: StatusServer, host: bytes) -> None:
    assert ask(server, b"GET /metrics HTTP/1.1\r\nhost: " + host + b"\r\n\r\n").split()[1] == b"200"


@pytest.mark.parametrize("host", [b"evil.example", b"127.0.0.1.evil.example:80", b"10.0.0.7", b"\xff", b""])
def test_a_page_that_calls_this_machine_by_its_own_name_reads_nothing(server: StatusServer, host: bytes) -> None:
    answer = ask(server, b"GET /metrics HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert answer.split()[1] == b"403"
    assert b"clipmux_" not in answer


def test_a_head_without_end_is_not_read_for_ever(server: StatusServer) -> None:
    with connect(server) as connection, pytest.raises(OSError, match=r"reset|Broken pipe"):
        connection.sendall(b"x" * 10_000 * HEAD_MOST)
    assert get(server, "/metrics")[0] == 200


def test_as_many_idle_connections_as_there_are_places_keep_others_out_only_until_patience_ends(
    server: StatusServer,
) -> None:
    idle = [connect(server) for _ in range(CONNECTIONS + 4)]
    idle[0].sendall(b"GET /metrics HTTP/1.1\r\n")  # and never the rest
    assert get(server, "/metrics")[0] == 200
    for connection in idle[:CONNECTIONS]:
        assert connection.recv(1) == b""  # it was given up
    for connection in idle:
        connection.close()


def test_closing_does_not_wait_for_those_who_are_connected(observer: Observer) -> None:
    server = StatusServer(observer, ("127.0.0.1", 0), stuck_after=30.0)
    with connect(server):
        server.close()
    with pytest.raises(ConnectionRefusedError):
        connect(server)


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_closing_leaves_no_connection_open_that_came_at_that_moment(
    observer: Observer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: lost.append(unraisable.exc_value))
    for attempt in range(160):  # of 400 attempts one in fifteen lost it
        server = StatusServer(observer, ("127.0.0.1", 0), stuck_after=30.0)
        with connect(server):
            time.sleep(attempt % 8 * 5e-5)
            server.close()
    gc.collect()
    assert lost == []
    assert "Exception in callback" not in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9108", ("127.0.0.1", 9108)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("127.9.9.9:1", ("127.9.9.9", 1)),
        ("[::1]:9108", ("::1", 9108)),
    ],
)
def test_addresses_of_this_machine_alone(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text, remote=False) == expected


@pytest.mark.parametrize("text", ["0.0.0.0:9108", "[::]:9108", "10.0.0.7:9108", "[fe80::1]:80"])
def test_addresses_that_others_can_reach_must_be_meant(text: str) -> None:
    with pytest.raises(UsageError, match=r"other machines can reach.*--metrics-allow-remote"):
        parse_address(text, remote=False)
    assert parse_address(text, remote=True)[0] in text


@pytest.mark.parametrize(
    "text", ["", "9108", ":9108", "example.org:9108", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="--metrics"):
        parse_address(text, remote=True)


def test_an_address_that_is_taken_is_named(server: StatusServer, observer: Observer) -> None:
    port = urlsplit(server.url).port
    assert port is not None
    with pytest.raises(UsageError, match=f"127.0.0.1:{port}.*in use"):
        StatusServer(observer, ("127.0.0.1", port), stuck_after=30.0)
