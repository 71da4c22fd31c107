"""Who may come in over TCP: the other half of CurveZMQ, which asks it about every key (ZAP, ZeroMQ RFC 27).

One thread per context answers, from an allow-list that it was given, and logs who was turned away. What it remembers
and what it writes are bounded, however many try.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from .keys import Keys

log = logging.getLogger(__name__)

DOMAIN = b"clipmux"
ADDRESS = "inproc://zeromq.zap.01"
SAY_AGAIN_S = 60.0
"""The same peer is named in the log once in so long, with the number of its tries."""
REMEMBERED = 1000
"""Peers that are remembered for that; the oldest is forgotten."""
LINES_MOST = 20
"""Lines in one ``SAY_AGAIN_S`` at most: a crowd is counted, not listed."""
HANDSHAKES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL

Socket = zmq.Socket[bytes]


class Gate:
    """Lets those in whose key is trusted, or one's own: the processes of one run have the same.

    Args:
        context: whose sockets it answers for, as long as that lives.
        keys: one's own, and the allow-list.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Keys) -> None:
        self.keys = keys
        self._turned_away = TurnedAway()
        # A context of the same depth that does not know of these sockets: they are closed here, not by its owner.
        self._context: zmq.Context[Socket] = zmq.Context.shadow(context.underlying)
        self._asked: Socket = self._context.socket(zmq.REP)
        self._asked.setsockopt(zmq.LINGER, 0)
        self._asked.bind(ADDRESS)
        self._wake, self._told = os.pipe()
        self._monitors: dict[Socket, str] = {}
        self._coming: list[tuple[Socket, str]] = []
        self._visitors: dict[str, str] = {}
        threading.Thread(target=self._answer, name="gate", daemon=True).start()

    def watch(self, listening: zmq.Socket[bytes], address: str) -> None:
        """Log those who fail before they have shown a key: they speak no CurveZMQ, or not the whole of it."""
        events = zmq.EVENT_ACCEPTED | HANDSHAKES
        place = f"inproc://gate-{id(listening)}-{time.monotonic_ns()}"
        listening.monitor(place, events)
        monitor: Socket = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.connect(place)
        self._coming.append((monitor, address))
        os.write(self._told, b".")

    def _answer(self) -> None:
        poller = zmq.Poller()
        poller.register(self._asked, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        with contextlib.suppress(zmq.ContextTerminated):
            while True:
                for source, _ in poller.poll():
                    if source == self._wake:
                        os.read(self._wake, 1)
                        monitor, address = self._coming.pop()
                        self._monitors[monitor] = address
                        poller.register(monitor, zmq.POLLIN)
                    elif source is self._asked:
                        self._asked.send_multipart(self._reply(self._asked.recv_multipart()))
                    else:
                        self._hear(source)
        for one in (self._asked, *self._monitors, *(monitor for monitor, _ in self._coming)):
            one.close(linger=0)
        os.close(self._wake)
        os.close(self._told)

    def _reply(self, request: Sequence[bytes]) -> list[bytes]:
        """``[version, request, domain, address, identity, mechanism, key]`` to ``[version, request, code, …]``."""
        version, number, domain, address, _, mechanism, *credentials = request
        who = address.decode(errors="replace")
        name = None
        if domain == DOMAIN and mechanism == b"CURVE" and len(credentials) == 1:
            key = z85.encode(credentials[0])
            name = "this run" if key == self.keys.public else self.keys.trusted.get(key)
            if name is None:
                self._turned_away.add(who, f"its key {key.decode()} is not trusted")
        else:
            self._turned_away.add(who, "it shows no key")
        if name is None:
            return [version, number, b"400", b"not trusted", b"", b""]
        return [version, number, b"200", b"", name.encode(), b""]

    def _hear(self, monitor: Socket) -> None:
        event = parse_monitor_message(monitor.recv_multipart())
        address = self._monitors[monitor]
        if event["event"] == zmq.EVENT_ACCEPTED:
            if (visitor := _peer(event["value"])) is not None:
                self._visitors[address] = visitor
        else:  # zmq does not say whose handshake: it is one of those who came, and mostly the last
            who = self._visitors.get(address, "someone")
            self._turned_away.add(who, f"it does not speak CurveZMQ to {address}")


class TurnedAway:
    """Those who were turned away, in as many lines of the log as do no harm."""

    def __init__(self) -> None:
        self._tries: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._lines: list[float] = []
        self._unsaid = 0

    def add(self, who: str, why: str, now: float | None = None) -> None:
        """Someone was turned away, ``now`` by ``time.monotonic()``."""
        now = time.monotonic() if now is None else now
        # Ports change with every try.
        said, tries = self._tries.pop((_host(who), why), (-SAY_AGAIN_S, 0))
        tries += 1
        self._lines = [at for at in self._lines if now - at < SAY_AGAIN_S]
        if now - said >= SAY_AGAIN_S:
            if len(self._lines) < LINES_MOST:
                again = f", {tries} times since the last line about it" if tries > 1 else ""
                others = f" (and {self._unsaid} others, who were too many to name)" if self._unsaid else ""
                log.warning("%s was turned away, %s%s%s", who, why, again, others)
                self._lines.append(now)
                self._unsaid = 0
                said, tries = now, 0
            else:
                self._unsaid += 1
        self._tries[_host(who), why] = (said, tries)
        while len(self._tries) > REMEMBERED:
            self._tries.popitem(last=False)


def _host(who: str) -> str:
    return who.rpartition(":")[0] or who


def _peer(descriptor: int) -> str | None:
    """Who is at the other end of a connection of this process; None if it is over already."""
    try:
        own = os.dup(descriptor)
    except OSError:
        return None
    try:
        connection = socket.socket(fileno=own)
    except OSError:  # the number is another file's by now
        os.close(own)
        return None
    with connection, contextlib.suppress(OSError, ValueError):
        host, port, *_ = connection.getpeername()
        return f"{host}:{port}"
    return None
