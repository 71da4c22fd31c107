"""A real page process over real sockets: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from stage import LABELS, Stage, stage, told

from clipmux.engine.messages import Failed, Hello

TOKEN = "correct-horse-battery-staple"  # noqa: S105
NASTY = '<img src=x onerror="alert(1)">'
Answer = tuple[int, dict[str, str], bytes]


def url_of(play: Stage) -> str:
    return next(str(said.about["url"]) for who, said in play.said if isinstance(said, Hello) and who.startswith("page"))


def get(url: str, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def until(url: str, path: str, wanted: Any) -> Any:
    """The JSON at a path, once it is as wanted."""
    deadline = time.monotonic() + 10
    while not wanted(content := json.loads(get(url, path)[2])):
        assert time.monotonic() < deadline, content
        time.sleep(0.05)
    return content


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path, http={"host": "127.0.0.1", "port": 0, "token": None}) as made:
        made.streams([told(0, "door"), told(1, NASTY)])
        made.state(0, fps=25.0)
        yield made


def test_streams_events_and_thumbnails(play: Stage) -> None:
    url = url_of(play)
    play.totals(clips_per_s=12.5, batch_fill=0.5, device_busy=0.75)
    for score in (0.9, 0.8, 0.1):
        play.clip(0, score)
    play.thumbnail(1)
    play.drops((0, 7))
    play.events(2)
    content = until(
        url,
        "/api/streams",
        lambda content: (
            len(content["streams"]) == 2 and content["streams"][1]["picture_at"] and content["streams"][0]["dropped"]
        ),
    )
    assert content["totals"] == {
        "streams": 2,
        "live": 1,
        "clips": 3,
        "dropped": 7,
        "events": 2,
        "clips_per_s": 12.5,
        "batch_fill": 0.5,
        "device_busy": 0.75,
    }
    door, nasty = content["streams"]
    assert (door["name"], door["state"], door["fps"], door["url"]) == ("door", "live", 25.0, "rtsp://***@10.0.0.0/cam")
    assert [best["score"] for best in door["labels"]] == [0.3, 0.3, 0.3]
    assert 0.1 <= door["latency_s"]["p50"] <= door["latency_s"]["p99"] < 5
    assert (nasty["name"], nasty["state"], nasty["labels"]) == (NASTY, "connecting", [])
    events = until(url, "/api/events", lambda content: len(content["events"]) == 2)["events"]
    assert [event["event"] for event in events] == ["started", "ended"]
    assert until(url, f"/api/events?since={events[0]['id']}", bool)["events"] == events[1:]
    status, headers, body = get(url, f"/api/streams/{quote(NASTY, safe='')}/thumbnail.jpg")
    assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert get(url, "/api/streams/door/thumbnail.jpg")[0] == 204
    assert get(url, "/api/streams/absent/thumbnail.jpg")[0] == 404


def test_every_answer_keeps_a_browser_from_doing_more_than_it_should(play: Stage) -> None:
    url = url_of(play)
    for path in ("/", "/page.js", "/page.css", "/icon.svg", "/api/streams", "/openapi.json", "/absent"):
        status, headers, body = get(url, path)
        assert status == (404 if path == "/absent" else 200), path
        assert headers["content-security-policy"].startswith("default-src 'self';"), path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert b"//cdn" not in body
        assert b"https://" not in body
    assert {"/api/streams", "/api/events", "/api/feed"} <= set(json.loads(get(url, "/openapi.json")[2])["paths"])
    assert get(url, "/docs")[0] == 404
    assert get(url, "/api/events?since=-1")[0] == 422
    assert get(url, "/api/streams", method="POST")[0] == 405
    for page in ("page.html", "page.js"):
        text = get(url, "/" if page == "page.html" else "/page.js")[2].decode()
        assert "innerHTML" not in text
        assert "onclick=" not in text


def feed(url: str, headers: dict[str, str] | None = None) -> tuple[http.client.HTTPConnection, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", "/api/feed", headers=headers or {})
    return connection, connection.getresponse()


def messages(answer: Any) -> Iterator[tuple[str, Any]]:
    kind = ""
    while line := answer.readline():
        if line.startswith(b"event: "):
            kind = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield kind, json.loads(line[6:])


def test_the_feed_tells_what_happens_and_a_late_page_has_all_of_it(play: Stage) -> None:
    url = url_of(play)
    connection, answer = feed(url)
    assert answer.headers["content-type"] == "text/event-stream"
    news = messages(answer)
    play.clip(0, 0.9)
    event = next(content for kind, content in news if kind == "happened")
    assert (event["stream"], event["label"]) == ("door", LABELS[1])
    connection.close()
    connection, answer = feed(url)
    seen: dict[str, Any] = {}
    for kind, content in messages(answer):
        seen[kind] = content
        if seen.keys() == {"snapshot", "happened", "history"} and seen["history"].get("door"):
            break
    connection.close()
    assert seen["happened"] == event
    (mark,) = seen["history"]["door"]
    assert mark[1:] == [LABELS[1], pytest.approx(0.9)]
    play.stop("page")
    assert isinstance(play.start("page"), Hello)  # a page that begins late
    again = [said for who, said in play.said if isinstance(said, Hello)][-1].about["url"]
    assert until(again, "/api/events", lambda content: content["events"])["events"][0] == event


def test_too_many_pages_and_one_that_takes_nothing(play: Stage) -> None:
    url = url_of(play)
    place = (urlsplit(url).hostname, urlsplit(url).port)
    opened = []
    for _ in range(32):
        connection, answer = feed(url)
        assert answer.status == 200
        answer.readline()
        opened.append(connection)
    assert get(url, "/api/feed")[0] == 503
    for connection in opened:
        connection.close()
    deadline = time.monotonic() + 10
    while True:
        connection, answer = feed(url)
        connection.close()
        if answer.status == 200:
            break
        assert time.monotonic() < deadline
    with socket.create_connection(place) as lazy:  # never reads; everybody else is served
        lazy.sendall(b"GET /api/feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
        play.clip(0, 0.9)
        until(url, "/api/events", lambda content: content["events"])
    play.stop("page")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.nip.io", ""])
def test_a_foreign_name_for_this_machine_is_refused(host: str, play: Stage) -> None:
    assert get(url_of(play), "/api/streams", {"Host": host})[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:1", "192.168.1.7:8080"])
def test_an_address_or_a_name_of_its_own_is_not(host: str, play: Stage) -> None:
    assert get(url_of(play), "/api/streams", {"Host": host})[0] == 200


def test_with_a_token_nothing_is_shown_without_it(tmp_path: Path) -> None:
    with stage(tmp_path, http={"host": "0.0.0.0", "port": 0, "token": TOKEN}) as play:  # noqa: S104
        url = url_of(play).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        play.streams([told(0, "door")])
        play.thumbnail(0)
        paths = (
            "/",
            "/page.js",
            "/api/streams",
            "/api/events",
            "/api/feed",
            "/openapi.json",
            "/absent",
            "/api/streams/door/thumbnail.jpg",
        )
        wrong = (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Cookie": f"x={TOKEN}"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer \xe4"},
        )
        for path in paths:
            for headers in wrong:
                status, _, body = get(url, path, headers)
                assert (status, b"door" in body) == (401, False), (path, headers)
        for path in (f"/?token={TOKEN}x", "/?token=", f"/?token={TOKEN}&token={TOKEN}"):
            assert get(url, path)[0] == 401
        assert get(url, "/api/streams", {"Authorization": f"Bearer {TOKEN}"})[0] == 200
        status, headers, _ = get(url, f"/api/events?since=3&token={TOKEN}")
        assert (status, headers["location"]) == (303, "/api/events?since=3")
        assert get(url, f"//evil.example/?token={TOKEN}")[1]["location"] == "/evil.example/"
        cookie = headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
        kept = cookie.partition(";")[0]
        deadline = time.monotonic() + 10
        while get(url, "/api/streams/door/thumbnail.jpg", {"Cookie": kept})[0] != 200:
            assert time.monotonic() < deadline
        for path in ("/", "/api/streams"):
            for cookies in (kept, f'prefs={{"a":1}}; {kept}', f"foo[bar]=1; {kept}; a=b c"):
                assert get(url, path, {"Cookie": cookies})[0] == 200
        assert get(url, "/", {"Cookie": kept[:-1]})[0] == 401
        connection, answer = feed(url, {"Cookie": kept})
        assert answer.status == 200
        connection.close()


@pytest.mark.parametrize(
    ("http_setting", "mention"),
    [
        ({"host": "0.0.0.0", "port": 0, "token": None}, "--http 0.0.0.0 is open to other machines"),  # noqa: S104
        ({"host": "127.0.0.1", "port": 0, "token": "short"}, "--token is too weak"),
        ({"host": "192.0.2.1", "port": 8080, "token": TOKEN}, "--http 192.0.2.1:8080 cannot be listened on"),
    ],
)
def test_a_place_that_cannot_be_is_refused_with_a_sentence(
    http_setting: dict[str, Any], mention: str, tmp_path: Path
) -> None:
    play = Stage(tmp_path, http=http_setting)
    try:
        failed = play.start("page")
        assert isinstance(failed, Failed)
        assert failed.usage
        assert mention in failed.message
        assert TOKEN not in failed.message
    finally:
        play.close()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        play = Stage(tmp_path, http={"host": "127.0.0.1", "port": taken.getsockname()[1], "token": None})
        try:
            failed = play.start("page")
        finally:
            play.close()
    assert isinstance(failed, Failed)
    assert "Address already in use" in failed.message
