"""Where events go besides the page: a file, a webhook, an MQTT broker. None of them can hold up whoever tells them.

Each sink delivers in a thread of its own, in order, from a bounded queue, and tries again for as long as it takes; when
its queue is full the oldest events go, and are counted. Delivery is "at least once": an event whose answer was lost is
sent again.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import logging
import os
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from clipmux.engine.errors import UsageError

log = logging.getLogger(__name__)

WAITING_MOST = 10_000
"""Events that wait for a sink at most: some megabytes."""
GROUP_MOST = 1000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
TIMEOUT_S = 5.0
TOPIC = "clipmux/events"


class Undelivered(Exception):  # noqa: N818  (said as it is)
    """Events could not be delivered now; the message is one sentence without credentials."""


class Refused(Exception):  # noqa: N818
    """The other side does not want this event; another try would not help."""


class Ended(Exception):  # noqa: N818
    """Nothing more can be delivered this way. Its sink ends, and keeps this for its owner."""


class Delivery(ABC):
    """One way out. All methods are called by one thread."""

    name: str
    """For the log: without credentials."""
    group = 1
    """How many events it takes at once."""

    @abstractmethod
    def deliver(self, lines: list[bytes]) -> None:
        """Deliver events, each one line of JSON without its end; returns when that is certain.

        Raises:
            Undelivered: not now; the same will be tried again.
            Refused: never.
            Ended: neither these nor any other.
        """

    @abstractmethod
    def close(self) -> None: ...


class Sink:
    """A queue and the thread that empties it.

    Attributes:
        ended: why nothing more can be delivered; None while it can.
    """

    def __init__(self, delivery: Delivery, *, most: int = WAITING_MOST) -> None:
        self.delivered = 0
        self.dropped = 0
        self.refused = 0
        self.ended: Ended | None = None
        self._dropping = False
        self._said = 0
        """How many of the dropped the log knows of."""
        self._delivery = delivery
        self._most = most
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=delivery.name, daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Take an event; never waits."""
        with self._changed:
            if len(self._waiting) >= self._most:
                self._waiting.popleft()
                self.dropped += 1
                if not self._dropping or self.dropped % 1000 == 0:
                    self._say_dropped("takes too few events")
                self._dropping = True
            self._waiting.append(line)
            self._changed.notify()

    def close(self, within_s: float) -> int:
        """Deliver what waits, for so long; what is left then is counted, said and returned."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(within_s)
        with self._changed:
            left = len(self._waiting)
            if self.dropped > self._said:
                self._say_dropped("is closed")
        if left:
            log.error("%s was not given the last %d events", self._delivery.name, left)
        return left

    def _work(self) -> None:
        pause = FIRST_PAUSE_S
        while lines := self._next():
            try:
                self._deliver(lines)
            except Undelivered as error:
                if pause == FIRST_PAUSE_S:
                    log.warning("%s; it will be tried again", error)
                if self._closing:
                    break
                self._rest(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            except Refused as error:
                self.refused += len(lines)
                log.error("%s", error)  # noqa: TRY400  (the sentence says it)
            except Ended as error:
                self.ended = error
                break
            else:
                self.delivered += len(lines)
                if pause != FIRST_PAUSE_S:
                    log.warning("%s takes events again", self._delivery.name)
                pause = FIRST_PAUSE_S
            self._forget(lines)
        with contextlib.suppress(Exception):  # it is the end: there is nobody left to care
            self._delivery.close()

    def _deliver(self, lines: list[bytes]) -> None:
        """Deliver, where nothing that a library raises ends this thread: nobody would see that events wait for ever."""
        try:
            self._delivery.deliver(lines)
        except (Undelivered, Refused, Ended):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise Undelivered(f"{self._delivery.name} met an unexpected error ({reason})") from error

    def _next(self) -> list[bytes]:
        """The events that go next, still in the queue; none when closing and all are delivered."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            return [self._waiting[i] for i in range(min(len(self._waiting), self._delivery.group))]

    def _forget(self, lines: list[bytes]) -> None:
        """Take from the queue what is done, unless it was dropped in the meantime."""
        with self._changed:
            for line in lines:
                if self._waiting and self._waiting[0] is line:
                    self._waiting.popleft()
            if self._dropping and len(self._waiting) <= self._most // 2:  # a full queue with one place free drops on
                self._dropping = False
                self._say_dropped("has room again")

    def _say_dropped(self, how: str) -> None:
        self._said = self.dropped
        log.error("%s %s; dropped so far: %d", self._delivery.name, how, self.dropped)

    def _rest(self, seconds: float) -> None:
        """Wait before the next try; when closing, that is at once, and the last."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not self._closing and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)


class FileDelivery(Delivery):
    """Appends to a file, whole lines only, and lets a group of them reach the disk together.

    Raises:
        UsageError: the file cannot be opened.
    """

    group = GROUP_MOST

    def __init__(self, path: Path) -> None:
        self.name = f"--output '{path}'"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"--output '{path}' cannot be written ({error.strerror}): give another file") from None
        with contextlib.suppress(OSError):  # a pipe or a terminal has no end to look at
            size = os.lseek(self._file, 0, os.SEEK_END)
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")  # somebody was killed within a line: ours begins on one of its own

    def deliver(self, lines: list[bytes]) -> None:
        content = b"".join(line + b"\n" for line in lines)
        try:
            self._append(content)
        except OSError as error:
            raise Undelivered(f"{self.name} cannot be written ({error.strerror}): make room for it") from None
        with contextlib.suppress(OSError):  # not every file can be synced
            os.fsync(self._file)

    def _append(self, content: bytes) -> None:
        start = self._size()
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            if start is not None:  # half a group must not stay: all of it will be tried again
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, start)
            raise

    def _size(self) -> int | None:
        with contextlib.suppress(OSError):
            return os.lseek(self._file, 0, os.SEEK_END)
        return None

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class Address:
    """The parts of a webhook's or broker's URL."""

    secure: bool
    host: str
    port: int
    path: str
    user: str | None
    password: str | None
    shown: str

    @classmethod
    def of(cls, option: str, url: str, *, schemes: dict[str, tuple[bool, int]]) -> Address:
        """Read a URL.

        Raises:
            UsageError: it is of another scheme, or no URL. Does not quote it: it may hold credentials.
        """
        try:
            parts: SplitResult = urlsplit(url)
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")  # as connecting does: an empty or overlong label is no name
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        plain = url.isascii() and url.isprintable() and not set(" #") & set(url)
        if parts.scheme not in schemes or not host or not plain:
            example = "http://127.0.0.1:9000/events" if "http" in schemes else "mqtt://127.0.0.1/clipmux/events"
            raise UsageError(f"{option} is not a URL of {' or '.join(schemes)}: write it like {example}")
        secure, usual = schemes[parts.scheme]
        user = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
        place = f"[{host}]" if ":" in host else host
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        shown = f"{option} {parts.scheme}://{place}:{port or usual}"
        return cls(secure, host, port or usual, path, user, password, shown)


class WebhookDelivery(Delivery):
    """Posts each event to a URL. 2xx means delivered; 408, 429 and 5xx are tried again, other answers are not.

    Raises:
        UsageError: no http or https URL.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._address = Address.of("--webhook", url, schemes={"http": (False, 80), "https": (True, 443)})
        self.name = self._address.shown
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context() if self._address.secure else None
        self._headers = {"Content-Type": "application/json", "User-Agent": "clipmux"}
        if self._address.user is not None:
            credentials = f"{self._address.user}:{self._address.password or ''}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(credentials).decode()

    def deliver(self, lines: list[bytes]) -> None:
        (line,) = lines
        deadline = time.monotonic() + self._timeout_s
        connection = self._connect()
        try:
            connection.connect()
            received = _Received(connection.sock, deadline)
            connection.request("POST", self._address.path or "/", body=line, headers=self._headers)
            answer = http.client.HTTPResponse(received, method="POST")  # type: ignore[arg-type]  # all it needs
            answer.begin()  # what it says besides its status is not read: it may go on for ever
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Undelivered(f"{self.name} cannot be reached ({reason})") from None
        finally:
            connection.close()
        if 200 <= answer.status < 300:
            return
        if answer.status in (408, 429) or answer.status >= 500:
            raise Undelivered(f"{self.name} answers {answer.status}")
        raise Refused(f"{self.name} answers {answer.status}, so the event is not sent again")

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address.host, self._address.port
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)

    def close(self) -> None:
        pass


class _Received(io.RawIOBase):
    """What a connection receives until a deadline; its own timeout would begin anew with every byte."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  (as of a socket)
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if (left := self._deadline - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class MqttDelivery(Delivery):
    """Publishes each event to a broker, quality of service 1: delivered is what the broker has confirmed.

    The URL's path is the topic, ``clipmux/events`` without one.

    Raises:
        UsageError: no mqtt or mqtts URL, or paho-mqtt is not installed.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._address = Address.of("--mqtt", url, schemes={"mqtt": (False, 1883), "mqtts": (True, 8883)})
        self.name = self._address.shown
        self._timeout_s = timeout_s
        self._topic = self._address.path.strip("/") or TOPIC
        if "+" in self._topic:
            raise UsageError(f"--mqtt has the topic '{self._topic}': one to publish to has no +")
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise UsageError("--mqtt needs paho-mqtt: pip install 'clipmux[mqtt]'") from None
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, int(LONGEST_PAUSE_S))
        self._client.connect_timeout = timeout_s
        if self._address.user is not None:
            self._client.username_pw_set(self._address.user, self._address.password)
        if self._address.secure:
            self._client.tls_set()
        self._why = "no answer"
        self._client.on_connect = self._connected
        self._client.connect_async(self._address.host, self._address.port, keepalive=30)
        self._client.loop_start()
        self._sent: tuple[bytes, Any] | None = None
        """What the broker has not confirmed yet: it is waited for again, not published twice."""

    def deliver(self, lines: list[bytes]) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not self._client.is_connected():
            if time.monotonic() > deadline:
                raise Undelivered(f"{self.name} cannot be reached ({self._why})")
            time.sleep(0.02)
        try:
            if self._sent is None or self._sent[0] is not lines[0]:
                self._sent = (lines[0], self._client.publish(self._topic, lines[0], qos=1))
            _, publication = self._sent
            publication.wait_for_publish(max(0.0, deadline - time.monotonic()))
            confirmed = publication.is_published()
        except (RuntimeError, ValueError) as error:  # the connection was lost, and the client had not noticed yet
            self._sent = None
            raise Undelivered(f"{self.name} cannot be given an event ({str(error).rstrip('.')})") from None
        if not confirmed:
            raise Undelivered(f"{self.name} does not confirm an event")
        self._sent = None

    def _connected(self, client: object, userdata: object, flags: object, reason: Any, properties: object) -> None:  # noqa: ARG002
        self._why = f"it says {str(reason).lower()}"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def open_sinks(*, output: str | None, webhook: str | None, mqtt: str | None) -> list[Sink]:
    """The sinks that were asked for.

    Raises:
        UsageError: one of them cannot be as asked.
    """
    deliveries: list[Delivery] = []
    if output:
        deliveries.append(FileDelivery(Path(output)))
    if webhook:
        deliveries.append(WebhookDelivery(webhook))
    if mqtt:
        deliveries.append(MqttDelivery(mqtt))
    return [Sink(delivery) for delivery in deliveries]
