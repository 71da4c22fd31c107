"""The process around the page: the feed in one thread, HTTP in another."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import zmq

from clipmux.engine.child import Setting
from clipmux.engine.control import Link, expect
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.messages import Goodbye, Hello, Stop
from clipmux.engine.sockets import Context, subscribe_feed
from clipmux.engine.stages import Stages

from .board import SLOW_S, Board
from .guard import Guard, Http

log = logging.getLogger(__name__)

CONNECTIONS_MOST = 256
REQUEST_S = 5.0
"""A connection on which no request is being answered is closed after so long at most."""


def run(setting: Setting, context: Context, link: Link) -> None:
    """The role: see engine/child.py."""
    Page(Http(**setting.content["http"]), setting, context, link).run()


class Page:
    """Reads the feed in this thread, and lets uvicorn answer in another."""

    def __init__(self, http: Http, setting: Setting, context: Context, link: Link) -> None:
        try:
            import uvicorn

            from .app import make_app
        except ImportError:
            raise UsageError("--http needs FastAPI and uvicorn: pip install 'clipmux[live]'") from None
        self._link = link
        self._feed = subscribe_feed(context, setting.content["feed"])
        self._socket = _listen(http)
        host, port = self._socket.getsockname()[:2]
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        self._board = Board()
        app = Guard(make_app(self._board), http, port)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=impatient_protocol(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MOST,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        serving = threading.Thread(target=self._serve, name="http", daemon=True)
        serving.start()
        self._link.send(Hello({"url": self._url}))
        poller = zmq.Poller()
        poller.register(self._feed, zmq.POLLIN)
        poller.register(self._link.socket, zmq.POLLIN)
        while True:
            events = dict(poller.poll(1000))
            if self._feed in events:
                self._board.take(*self._feed.recv_multipart())
            if self._link.socket in events:
                expect(self._link.receive(None), Stop)
                break
            if not serving.is_alive():
                raise ClipmuxError("the page's HTTP server has ended: the log says why")
            self._link.beat()
        self._board.close()
        self._server.should_exit = True
        serving.join(timeout=2)
        self._link.send(Goodbye(Stages().figures()))
        self._feed.close(linger=0)

    def _serve(self) -> None:
        async def serve() -> None:
            self._board.attach(asyncio.get_running_loop())
            await self._server.serve(sockets=[self._socket])

        try:
            asyncio.run(serve())
        except Exception:
            log.exception("the page's HTTP server met an unexpected error")


def impatient_protocol() -> type[asyncio.Protocol]:
    """uvicorn's HTTP, which waits for a request for ever, with an end to that: others want the connection."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._look_again()

        def _look_again(self) -> None:
            self._looking = self.loop.call_later(REQUEST_S, self._look)

        def _look(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()
            else:
                self._look_again()

        def connection_lost(self, exc: Exception | None) -> None:
            self._looking.cancel()
            super().connection_lost(exc)

    return Impatient


def _listen(http: Http) -> socket.socket:
    """A socket that listens there.

    Raises:
        UsageError: it cannot.
    """
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            http.host.strip("[]"), http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a browser that takes nothing is gone: its connection goes too
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(2 * SLOW_S * 1000))
        listening.bind(address)
        listening.listen(128)
        listening.setblocking(False)
    except OSError as error:
        if listening is not None:
            listening.close()
        what = error.strerror or str(error)
        raise UsageError(f"--http {http.host}:{http.port} cannot be listened on ({what}): give another") from None
    return listening
