"""A host elsewhere: processes for an engine on another machine, or outside this container.

It does nothing by itself: the supervisor there (engine/hosting.py) says which processes to begin and to end, and hears
how they ended. Its connection is its life. When that is lost, what was on its way is lost, so it ends its processes and
joins anew; over TCP they themselves end when one of theirs is lost (engine/child.py).
"""

from __future__ import annotations

import logging
import re
import socket
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from .child import CUT_OFF, Setting
from .children import MODULES, Child, describe_exit, start_child
from .control import Link
from .errors import ClipmuxError, MessageError
from .keys import Keys
from .messages import Beat, Begin, Control, End, Ended, Failed, Goodbye, Stop
from .orphans import ORPHANED
from .sockets import LINGER_MS, Addresses, Context, approach, scratch

log = logging.getLogger(__name__)

PREFIX = "host-"
"""Of what a host calls its connection."""
TICK_S = 0.5
AGAIN_S = 2.0
"""From the loss of a connection to the next try."""
STOP_S = 10.0
"""How long processes may take to end once the run is over."""
UNFINISHED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | UNFINISHED


class FarHost(ABC):
    """Processes for the engine at ``server``.

    Args:
        server: where its sockets are.
        role: of the processes.
        keys: one's own, and those that are trusted; None where the engine is on this machine.
        peer: the name that the server's key is trusted by.
        stay: wait for the next run when one is over.
        say: told, in one sentence, of what changes.
    """

    def __init__(
        self,
        server: str,
        role: str,
        *,
        keys: Keys | None,
        peer: str,
        stay: bool = False,
        say: Callable[[str], None],
    ) -> None:
        self.server = server
        self.role = role
        self.keys = keys
        self.peer = peer
        self.stay = stay
        self.say = say
        self.leaving = threading.Event()

    @abstractmethod
    def offer(self) -> Control:
        """What it says when it joins."""

    @abstractmethod
    def addresses(self, folder: Path, devices: int) -> Addresses:
        """The engine's sockets, as they are reached from here.

        Args:
            folder: of this host, for what is not the engine's.
            devices: of the engine.
        """

    @abstractmethod
    def content(self, told: dict[str, Any], folder: Path) -> dict[str, Any]:
        """What a process is told here, where the supervisor has told this."""

    def leave(self) -> None:
        """Ask it to end; safe in a signal handler."""
        self.leaving.set()

    def run(self) -> None:
        """Join, and join again whenever the connection is lost, until the run is over or ``leave`` was called.

        Raises:
            ClipmuxError: the server does not let it in, or cannot use it.
        """
        self.say(f"waiting for {self.server}")
        while not self.leaving.is_set():
            stay = _Stay(self)
            try:
                over = stay.last()
            finally:
                stay.end()
            if over:
                self.say("the run is over")
                if not self.stay:
                    return
            elif not self.leaving.is_set():
                self.say(f"the connection to {self.server} is lost: joining again")
            self.leaving.wait(AGAIN_S)
        self.say("left")


class _Stay:
    """From joining to losing the connection, once."""

    def __init__(self, host: FarHost) -> None:
        self._host = host
        self._name = f"{PREFIX}{uuid.uuid4().hex[:16]}"
        self._folder = scratch() / self._name
        """It is not there: it only tells processes whose they are (engine/orphans.py)."""
        self._children: dict[str, Child] = {}
        self._context: Context = zmq.Context()
        if host.keys is not None:
            approach(self._context, host.keys, host.peer)
        self._link = Link(self._context, host.addresses(self._folder, 1).control, self._name)
        self._monitor = self._link.socket.get_monitor_socket(EVENTS)
        self._poller = zmq.Poller()
        self._poller.register(self._link.socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._joined = self._puzzled = False

    def last(self) -> bool:
        """Work until the run is over (True), or the connection is lost or ``leave`` was called (False)."""
        self._link.send(self._host.offer())
        while not self._host.leaving.is_set():
            events = dict(self._poller.poll(round(TICK_S * 1000)))
            if self._monitor in events and self._lost():
                return False
            while (message := self._link.receive(0)) is not None:
                if not isinstance(message, Failed):
                    self._has_joined()  # the monitor does not see a handshake that was over before it began to look
                if isinstance(message, Stop):
                    self._finish()
                    return True
                if not self._obey(message):
                    return False
            self._reap(events)
            if self._joined:
                self._link.beat()
        self._link.send(Goodbye())
        return False

    def end(self) -> None:
        """End the processes, and close everything."""
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            child.reap()
        self._link.socket.disable_monitor()
        self._monitor.close(linger=0)
        self._link.socket.close(linger=LINGER_MS if self._joined else 0)
        self._context.destroy()

    def _has_joined(self) -> None:
        if not self._joined:
            self._joined = True
            self._host.say(f"joined {self._host.server}")

    def _lost(self) -> bool:
        """What the monitor says: whether the connection was lost.

        Raises:
            ClipmuxError: the server does not let this host in.
        """
        event = parse_monitor_message(self._monitor.recv_multipart())["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._has_joined()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and self._host.keys is not None:
            key = self._host.keys.public.decode()
            raise ClipmuxError(
                f"{self._host.server} does not trust this host: "
                f"say there 'clipmux keys trust {_own_name(self._host.role)} {key!r}'"
            )
        elif event & UNFINISHED and not self._puzzled:  # it may just be starting, or what is between does not reach it
            self._puzzled = True
            self._host.say(
                f"{self._host.server} does not answer as '{self._host.peer}' would: trying again (should that go on, "
                "compare its key with what 'clipmux keys list' shows there)"
            )
        return bool(event == zmq.EVENT_DISCONNECTED and self._joined)

    def _obey(self, message: Control) -> bool:
        """Do what the supervisor says; False if it does not know this host any more.

        Raises:
            ClipmuxError: it has no use for it.
        """
        if isinstance(message, Begin):
            self._begin(message)
        elif isinstance(message, End):
            if (child := self._children.get(message.name)) is not None:
                child.stopping = True
                child.kill()
        elif isinstance(message, Failed):
            if not message.usage:
                return False
            raise ClipmuxError(f"{self._host.server} has no use for this host: {message.message}")
        elif not isinstance(message, Beat):
            raise MessageError(f"the supervisor sent {type(message).__name__}, which does not belong here")
        return True

    def _begin(self, order: Begin) -> None:
        host = self._host
        content = host.content(order.content, self._folder)
        at = host.addresses(self._folder, len(content["clips"]))
        peer = None if host.keys is None else (str(host.keys.folder.resolve()), host.peer)
        setting = Setting(order.name, at, content, peer=peer)
        try:
            child = start_child(host.role, MODULES[host.role], setting, log=sys.stderr.buffer)
        except OSError as error:
            self._link.send(Ended(order.name, f"could not be started ({error.strerror})", at_fault=False))
            return
        self._children[order.name] = child
        self._poller.register(child.sentinel, zmq.POLLIN)

    def _reap(self, events: dict[Any, int]) -> None:
        for child in [child for child in self._children.values() if child.sentinel in events]:
            self._poller.unregister(child.sentinel)
            del self._children[child.name]
            status = child.reap()
            if status != 0 and not child.stopping:
                how = describe_exit(status)
                self._host.say(f"{child.name} {how}")
                self._link.send(Ended(child.name, how, at_fault=status not in (CUT_OFF, ORPHANED)))

    def _finish(self) -> None:
        """The run is over: its supervisor has told the processes too."""
        deadline = time.monotonic() + STOP_S
        while self._children and time.monotonic() < deadline:
            self._reap(dict(self._poller.poll(round(TICK_S * 1000))))


def say_so(sentence: str) -> None:
    """Print it where a person at a terminal reads."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def own_host() -> str:
    """What people call this machine."""
    return socket.gethostname()[:256]


def _own_name(role: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname()) or f"{role}-host"
