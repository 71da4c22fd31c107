"""``/metrics`` and ``/healthz`` over HTTP, from a thread of the supervisor's process.

The thread reads the last ``Look`` that the supervisor left and asks nobody anything. Whoever connects can hold up only
this thread: connections, bytes and seconds of each are bounded, and a page is made at most twice a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from .errors import UsageError
from .health import judge
from .metrics import Metrics
from .observer import Observer

log = logging.getLogger(__name__)

CONNECTIONS = 16
HEAD_MOST = 8192
"""Bytes of a request at most."""
PATIENCE_S = 5.0
"""From a connection's beginning to its end."""
PAGE_EVERY_S = 0.5
"""Children tell twice a second: a page that is made more often says nothing new."""

TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
JSON = "application/json"


def parse_address(text: str, *, remote: bool) -> tuple[str, int]:
    """``127.0.0.1:9108`` or ``[::1]:9108`` as host and port; port 0 is any free one.

    Args:
        text: what ``--metrics`` was given.
        remote: addresses that other machines can reach are allowed.

    Raises:
        UsageError: it is something else, or can be reached from other machines without ``remote``.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        address, number = ipaddress.ip_address(host), int(port)
    except ValueError:
        raise UsageError(f"--metrics is '{text}': give an IP address and a port, like 127.0.0.1:9108") from None
    if not 0 <= number < 1 << 16:
        raise UsageError(f"--metrics has port {number}: give one from 1 to 65535, or 0 for any free one")
    if not address.is_loopback and not remote:
        raise UsageError(
            f"--metrics is '{text}', which other machines can reach, and whoever reaches it can read it: "
            "give 127.0.0.1, or say --metrics-allow-remote too"
        )
    return host, number


class StatusServer:
    """Serves an engine's metrics and health until it is closed.

    Args:
        observer: of the engine.
        address: host and port, as ``parse_address`` gives them.
        stuck_after: seconds without progress that make a stage with work a stuck one.
        metrics: what is on the page.

    Attributes:
        url: where it is.

    Raises:
        UsageError: the address cannot be had.
    """

    def __init__(
        self, observer: Observer, address: tuple[str, int], *, stuck_after: float, metrics: Metrics | None = None
    ) -> None:
        self._observer = observer
        self._stuck_after = stuck_after
        self._metrics = metrics or Metrics()
        self._page: tuple[float, bytes] = (float("-inf"), b"")
        self._local = ipaddress.ip_address(address[0]).is_loopback
        self._socket = _listen(address)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; connections that are open are broken off."""
        with contextlib.suppress(RuntimeError):  # its loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(timeout=PATIENCE_S)
        self._socket.close()

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._serving = self._loop.create_task(self._serve())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serving)
        self._loop.close()

    def _stop(self) -> None:
        self._serving.cancel()

    async def _serve(self) -> None:
        """Answer connections, so many at a time; others wait to be accepted, a few, or are refused by the system."""
        free = asyncio.Semaphore(CONNECTIONS)
        answers: dict[asyncio.Task[None], socket.socket] = {}

        def done(task: asyncio.Task[None]) -> None:
            answers.pop(task).close()  # here, since a task that is cancelled before it begins closes nothing
            free.release()

        try:
            while True:
                await free.acquire()
                connection = await self._accept()
                task = self._loop.create_task(self._answer(connection))
                answers[task] = connection
                task.add_done_callback(done)
        finally:
            open_ones = list(answers)
            for task in open_ones:
                task.cancel()
            await asyncio.gather(*open_ones, return_exceptions=True)

    async def _accept(self) -> socket.socket:
        """The next connection. Not by ``sock_accept``, which loses the one that it has when it is cancelled."""
        while True:
            await self._somebody_waits()
            try:
                return self._socket.accept()[0]
            except BlockingIOError:
                continue
            except OSError as error:  # it went away before it was accepted, or this process is out of descriptors
                log.warning("a connection for the status was not accepted: %s", error.strerror)
                await asyncio.sleep(PAGE_EVERY_S)

    async def _somebody_waits(self) -> None:
        readable = asyncio.Event()
        self._loop.add_reader(self._socket, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(self._socket)

    async def _answer(self, connection: socket.socket) -> None:
        """One request, one answer; then the connection is closed."""
        connection.setblocking(False)
        try:
            await asyncio.wait_for(self._exchange(connection), PATIENCE_S)
        except (OSError, asyncio.TimeoutError):
            pass  # it went away, or was too slow
        except Exception:
            log.exception("a request for the status met an unexpected error")

    async def _exchange(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            if len(head) >= HEAD_MOST or not (more := await self._loop.sock_recv(connection, HEAD_MOST)):
                return
            head += more
        status, kind, body = self.respond(head)
        answer = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        await self._loop.sock_sendall(connection, answer.encode() + (b"" if head.startswith(b"HEAD ") else body))

    def respond(self, head: bytes) -> tuple[HTTPStatus, str, bytes]:
        """The answer to a request's head: status, content type and body."""
        request, *fields = head.splitlines()
        words = request.split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return HTTPStatus.BAD_REQUEST, TEXT, b"this is no HTTP/1 request\n"
        if self._local and not all(_names_loopback(field[5:]) for field in fields if field[:5].lower() == b"host:"):
            return HTTPStatus.FORBIDDEN, TEXT, b"this machine is not called that: ask 127.0.0.1\n"
        if words[0] not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"only GET and HEAD are answered\n"
        pages: dict[bytes, Callable[[], tuple[HTTPStatus, str, bytes]]] = {
            b"/metrics": self._metrics_page,
            b"/healthz": self._health_page,
        }
        page = pages.get(words[1].split(b"?", 1)[0])
        return page() if page else (HTTPStatus.NOT_FOUND, TEXT, b"there are /metrics and /healthz\n")

    def _metrics_page(self) -> tuple[HTTPStatus, str, bytes]:
        made_at, page = self._page
        look, now = self._observer.look, time.monotonic()
        if look is not None and now - made_at >= PAGE_EVERY_S:
            page = self._metrics.page(look)
            self._page = (now, page)
        return HTTPStatus.OK, METRICS, page

    def _health_page(self) -> tuple[HTTPStatus, str, bytes]:
        look = self._observer.look
        if look is None:
            return HTTPStatus.OK, JSON, b'{"status": "starting", "stuck": [], "stages": {}}\n'
        health = judge(look, time.monotonic(), stuck_after=self._stuck_after)
        status = HTTPStatus.OK if health.good else HTTPStatus.SERVICE_UNAVAILABLE
        return status, JSON, json.dumps(health.to_json(), indent=2).encode() + b"\n"


def _names_loopback(host: bytes) -> bool:
    """Whether a browser means this machine. One that a page has sent here under a name of its own (DNS rebinding) says
    that name.
    """
    name = host.decode("ascii", errors="replace").strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(CONNECTIONS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"--metrics is '{address[0]}:{address[1]}', where nothing can be served ({error.strerror}): "
            "give another address or port"
        ) from None
    return listener
