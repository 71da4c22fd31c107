"""Sinks with real files, a real HTTP server and a real broker: what is delivered, tried again, dropped and said."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clipmux.engine.errors import UsageError
from clipmux.workers import event_sinks
from clipmux.workers.event_sinks import (
    Address,
    Delivery,
    Ended,
    FileDelivery,
    MqttDelivery,
    Sink,
    Undelivered,
    WebhookDelivery,
)

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def wait_for(condition: Callable[[], object], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [json.dumps({"n": number}).encode() for number in range(first, first + count)]


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_sinks, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(event_sinks, "LONGEST_PAUSE_S", 0.1)


class Stubborn(Delivery):
    """Takes nothing until it is let."""

    name = "stubborn"

    def __init__(self) -> None:
        self.willing = threading.Event()
        self.got: list[bytes] = []

    def deliver(self, lines: list[bytes]) -> None:
        if not self.willing.is_set():
            raise Undelivered("not now")
        self.got += lines

    def close(self) -> None:
        pass


def test_what_cannot_be_delivered_waits_in_order_and_the_oldest_go_when_there_are_too_many() -> None:
    stubborn = Stubborn()
    sink = Sink(stubborn, most=10)
    for line in numbered(25):
        sink.put(line)
    assert sink.dropped == 15
    stubborn.willing.set()
    sink.close(5)
    assert stubborn.got == numbered(10, first=15)
    assert (sink.delivered, sink.refused) == (10, 0)


def test_what_is_dropped_while_it_is_being_delivered_takes_nothing_else_along() -> None:
    class Slow(Stubborn):
        def __init__(self) -> None:
            super().__init__()
            self.begun = threading.Event()

        def deliver(self, lines: list[bytes]) -> None:
            self.begun.set()
            assert self.willing.wait(10)
            super().deliver(lines)

    slow = Slow()
    sink = Sink(slow, most=3)
    first, *others = numbered(4)
    sink.put(first)
    assert slow.begun.wait(10)
    for line in others:
        sink.put(line)
    slow.willing.set()
    sink.close(5)
    assert slow.got == [first, *others]


def test_closing_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink(Stubborn())
    for line in numbered(3):
        sink.put(line)
    assert sink.close(5) == 3
    assert "stubborn was not given the last 3 events" in caplog.text


def test_the_log_says_how_many_were_dropped_when_there_is_room_again_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stubborn = Stubborn()
    sink = Sink(stubborn, most=10)

    def dropped() -> list[str]:
        return [record.message for record in caplog.records if "dropped" in record.message]

    for line in numbered(25):
        sink.put(line)
    assert dropped() == ["stubborn takes too few events; dropped so far: 1"]
    stubborn.willing.set()
    wait_for(lambda: sink.delivered == 10)
    assert dropped()[1:] == ["stubborn has room again; dropped so far: 15"]
    stubborn.willing.clear()
    for line in numbered(1012):
        sink.put(line)
    assert dropped()[2:] == [f"stubborn takes too few events; dropped so far: {count}" for count in (16, 1000)]
    assert sink.close(5) == 10
    assert dropped()[4:] == ["stubborn is closed; dropped so far: 1017"]


def test_a_way_out_that_ends_is_not_tried_again_and_its_owner_can_see_why() -> None:
    class Short(Stubborn):
        def deliver(self, lines: list[bytes]) -> None:
            if self.got:
                raise Ended("no more")
            super().deliver(lines)

    short = Short()
    short.willing.set()
    sink = Sink(short)
    for line in numbered(3):
        sink.put(line)
    wait_for(lambda: sink.ended)
    assert str(sink.ended) == "no more"
    assert sink.close(5) == 2
    assert (short.got, sink.delivered, sink.refused) == (numbered(1), 1, 0)


def test_an_unexpected_error_is_said_once_and_does_not_end_a_sink(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Stubborn):
        tries = 0

        def deliver(self, lines: list[bytes]) -> None:
            self.tries += 1
            if self.tries <= 3:
                raise UnicodeError("label too long")
            self.willing.set()
            super().deliver(lines)

    broken = Broken()
    sink = Sink(broken)
    for line in numbered(2):
        sink.put(line)
    wait_for(lambda: sink.delivered == 2)
    sink.close(5)
    assert broken.got == numbered(2)
    said = "stubborn met an unexpected error (UnicodeError: label too long); it will be tried again"
    assert [record.message for record in caplog.records].count(said) == 1


def test_a_file_is_appended_to_and_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'{"whole": 1}\n{"to')
    sink = Sink(FileDelivery(file))
    for line in numbered(2500):
        sink.put(line)
    sink.close(5)
    assert file.read_bytes().splitlines() == [b'{"whole": 1}', b'{"to', *numbered(2500)]


def test_a_full_disk_is_said_and_what_waited_is_written_once_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system of 64 KiB can be mounted here")
    try:
        file = disk / "events.jsonl"
        sink = Sink(FileDelivery(file))
        for line in numbered(9000):
            sink.put(line)
        wait_for(lambda: "No space left on device" in caplog.text)
        before = file.read_bytes()
        assert before == b"".join(line + b"\n" for line in numbered(before.count(b"\n")))
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        wait_for(lambda: sink.delivered == 9000)
        sink.close(5)
        assert file.read_bytes().splitlines() == numbered(9000)
        assert "takes events again" in caplog.text
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


# --- webhook ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that nobody trusts yet, and its key."""
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    made += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@contextmanager
def web_server(
    answers: list[int], certificate: tuple[Path, Path] | None = None
) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A server that gives these answers, one after the other, then 200; and what it was sent."""
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), body))
            self.send_response(answers.pop(0) if answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_webhook_gets_every_event_and_failures_are_tried_again() -> None:
    with web_server([500, 429, 200, 503]) as (place, got):
        sink = Sink(WebhookDelivery(f"http://me:sec%20ret@{place}/hook?to=us"))
        for line in numbered(3):
            sink.put(line)
        wait_for(lambda: sink.delivered == 3)
        sink.close(5)
    assert [body for _, _, body in got] == [numbered(3)[number] for number in (0, 0, 0, 1, 1, 2)]
    path, headers, _ = got[0]
    assert path == "/hook?to=us"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic bWU6c2VjIHJldA=="


def test_an_event_that_is_refused_is_said_and_not_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    with web_server([400, 302]) as (place, got):
        sink = Sink(WebhookDelivery(f"http://me:secret@{place}/"))
        for line in numbered(3):
            sink.put(line)
        wait_for(lambda: sink.delivered == 1)
        sink.close(5)
    assert [body for _, _, body in got] == numbered(3)
    assert sink.refused == 2
    assert f"--webhook http://{place} answers 400, so the event is not sent again" in caplog.text
    assert "secret" not in caplog.text


def test_a_webhook_that_is_not_there_yet_gets_its_events_later(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sink = Sink(WebhookDelivery(f"http://127.0.0.1:{port}/"))
    sink.put(b"{}")
    wait_for(lambda: "cannot be reached (Connection refused)" in caplog.text)
    assert sink.delivered == 0
    sink.close(0)


def test_a_webhook_that_never_answers_is_given_up_on_in_time(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = Sink(WebhookDelivery(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.1))
        sink.put(b"{}")
        wait_for(lambda: "cannot be reached (timed out)" in caplog.text)
        sink.close(5)


@pytest.mark.parametrize(
    ("answer", "delivered"), [(b"HTTP/1.1 200 OK\r\n\r\n", True), (b"HTTP/1.1 200 OK\r\nA: ", False)]
)
def test_an_answer_that_never_ends_holds_up_nothing(
    answer: bytes, delivered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1024)
            connection.sendall(answer)
            while not done.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        sink = Sink(WebhookDelivery(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_s=0.3))
        sink.put(b"{}")
        try:
            wait_for(lambda: sink.delivered == 1 if delivered else "cannot be reached (timed out)" in caplog.text, 5)
        finally:
            done.set()
            thread.join(5)
            sink.close(0)


def test_https_is_for_servers_that_are_trusted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with web_server([], certificate) as (place, got):
        sink = Sink(WebhookDelivery(f"https://{place}/"))
        sink.put(b"{}")
        wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
        sink.close(0)
        assert got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        sink = Sink(WebhookDelivery(f"https://{place}/"))
        sink.put(b"{}")
        wait_for(lambda: sink.delivered == 1)
        sink.close(5)
    assert [body for _, _, body in got] == [b"{}"]


@pytest.mark.parametrize(
    "url",
    [
        "example.org/x",
        "file:///etc/passwd",
        "http://",
        "http://a b/",
        "http://[::1",
        "http://x:99999/",
        "http://ä/",
        "http://a..b/x",
        f"http://{'a' * 64}.example/x",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--webhook is not a URL of http or https"):
        WebhookDelivery(url)


def test_addresses_show_no_credentials_and_no_path() -> None:
    address = Address.of("--mqtt", "mqtts://me:secret@[::1]/a/token", schemes={"mqtts": (True, 8883)})
    assert (address.shown, address.host, address.port) == ("--mqtt mqtts://[::1]:8883", "::1", 8883)
    assert (address.user, address.password, address.path) == ("me", "secret", "/a/token")


# --- MQTT ------------------------------------------------------------------------------------------------------------


@contextmanager
def broker(port: int, folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[None]:
    if MOSQUITTO is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto is not installed")
        pytest.skip("Debian's package mosquitto is not installed")
    settings = folder / "mosquitto.conf"
    tls = "" if certificate is None else f"certfile {certificate[0]}\nkeyfile {certificate[1]}\n"
    settings.write_text(f"user root\nlistener {port} 127.0.0.1\n{tls}allow_anonymous true\npersistence false\n")
    with subprocess.Popen([MOSQUITTO, "-c", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
        try:
            wait_for(lambda: _listens(port))
            yield
        finally:
            it.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_broker_gets_every_event_also_what_came_while_it_was_away(tmp_path: Path) -> None:
    mqtt = pytest.importorskip("paho.mqtt.client")
    from paho.mqtt.enums import CallbackAPIVersion

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    got: list[tuple[str, bytes]] = []
    sink = Sink(MqttDelivery(f"mqtt://127.0.0.1:{port}/site/events", timeout_s=0.5))
    sink.put(numbered(1)[0])  # before there is a broker
    with broker(port, tmp_path):
        reader = mqtt.Client(CallbackAPIVersion.VERSION2)
        reader.on_message = lambda *heard: got.append((heard[2].topic, heard[2].payload))
        reader.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        subscribed = threading.Event()
        reader.on_subscribe = lambda *_: subscribed.set()
        reader.connect("127.0.0.1", port)
        reader.loop_start()
        assert subscribed.wait(10)
        for line in numbered(5, first=1):
            sink.put(line)
        wait_for(lambda: sink.delivered == 6)
        wait_for(lambda: len(got) >= 5)
        reader.disconnect()
        reader.loop_stop()
        sink.close(5)
    assert {topic for topic, _ in got} == {"site/events"}
    assert [body for _, body in got][-5:] == numbered(5, first=1)


def test_a_broker_that_goes_as_it_is_published_to_gets_the_event_later(caplog: pytest.LogCaptureFixture) -> None:
    """For a moment the client has no connection and has not noticed yet; here that moment lasts."""
    pytest.importorskip("paho.mqtt.client")
    lost, go_on = threading.Event(), threading.Event()

    def closes(*_: object) -> None:
        lost.set()
        assert go_on.wait(10)

    def serve(server: socket.socket) -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)  # CONNECT
                connection.sendall(b"\x20\x02\x00\x00")  # CONNACK
                with connection.makefile("rb") as packets:
                    while lost.is_set() and (header := packets.read(2))[:1] == b"\x32":  # PUBLISH
                        packet = packets.read(header[1])
                        topic = 2 + int.from_bytes(packet[:2], "big")
                        connection.sendall(b"\x40\x02" + packet[topic : topic + 2])  # PUBACK

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        delivery = MqttDelivery(f"mqtt://127.0.0.1:{server.getsockname()[1]}", timeout_s=5)
        delivery._client.on_socket_close = closes
        sink = Sink(delivery)
        assert lost.wait(10)
        sink.put(b"{}")
        wait_for(lambda: "cannot be given an event" in caplog.text)
        go_on.set()
        wait_for(lambda: sink.delivered == 1)
        sink.close(5)
        thread.join(10)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho leaves that socket to be collected
def test_mqtts_is_for_brokers_that_are_trusted(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("paho.mqtt.client")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with broker(port, tmp_path, certificate):
        sink = Sink(MqttDelivery(f"mqtts://127.0.0.1:{port}", timeout_s=0.5))
        sink.put(b"{}")
        wait_for(lambda: f"mqtts://127.0.0.1:{port} cannot be reached" in caplog.text)
        assert sink.delivered == 0
        sink.close(5)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        sink = Sink(MqttDelivery(f"mqtts://127.0.0.1:{port}"))
        sink.put(b"{}")
        wait_for(lambda: sink.delivered == 1)
        sink.close(5)
