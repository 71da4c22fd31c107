"""A decoder host: decoders for an engine on another machine. It joins at any time and leaves at any time.

It does nothing by itself: the supervisor there says which decoders to begin and to end, and hears how they ended. Its
connection is its life. When that is lost, what was on its way is lost, so it ends its decoders and joins anew; they
themselves end when one of theirs is lost (engine/child.py). What it was at is handed out again by the supervisor.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from clipmux.workers.moved import Moved

from .child import CUT_OFF, Setting
from .children import DECODER, MODULES, Child, describe_exit, start_child
from .clips import Way
from .control import Link
from .errors import ClipmuxError, MessageError, UsageError
from .hosts import PREFIX
from .keys import Keys
from .logs import TEXT, log_child
from .messages import Beat, Begin, Control, End, Ended, Failed, Goodbye, Join, Stop
from .orphans import ORPHANED
from .sockets import LINGER_MS, Context, addresses_at, approach, split_address

log = logging.getLogger(__name__)

TICK_S = 0.5
AGAIN_S = 2.0
"""From the loss of a connection to the next try."""
STOP_S = 10.0
"""How long decoders may take to end once the run is over."""
UNFINISHED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | UNFINISHED


class DecoderHost:
    """Decoders for the engine at ``server``.

    Args:
        server: ``HOST:PORT`` that ``clipmux serve`` listens at.
        decoders: how many there is room for.
        keys: one's own keys, and those that are trusted.
        peer: the name that the server's key is trusted by.
        moved: where videos are here.
        say: told, in one sentence, of what changes.
    """

    def __init__(
        self, server: str, *, decoders: int, keys: Keys, peer: str, moved: Moved, say: Callable[[str], None]
    ) -> None:
        split_address(server)
        self.server = server
        self.decoders = decoders
        self.keys = keys
        self.peer = peer
        self.moved = moved
        self.say = say
        self.leaving = threading.Event()

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
                return
            if not self.leaving.is_set():
                self.say(f"the connection to {self.server} is lost: joining again")
                self.leaving.wait(AGAIN_S)
        self.say("left")


class _Stay:
    """From joining to losing the connection, once."""

    def __init__(self, host: DecoderHost) -> None:
        self._host = host
        self._name = f"{PREFIX}{uuid.uuid4().hex[:16]}"
        self._folder = Path(tempfile.gettempdir()) / self._name
        """It is not there: it only tells decoders whose they are (engine/orphans.py)."""
        self._children: dict[str, Child] = {}
        self._context: Context = zmq.Context()
        approach(self._context, host.keys, host.peer)
        self._at = addresses_at(host.server, self._folder, devices=1)
        self._link = Link(self._context, self._at.control, self._name)
        self._monitor = self._link.socket.get_monitor_socket(EVENTS)
        self._poller = zmq.Poller()
        self._poller.register(self._link.socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._joined = self._puzzled = False

    def last(self) -> bool:
        """Work until the run is over (True), or the connection is lost or ``leave`` was called (False)."""
        self._link.send(Join(socket.gethostname()[:256], self._host.decoders))
        while not self._host.leaving.is_set():
            events = dict(self._poller.poll(round(TICK_S * 1000)))
            if self._monitor in events and self._lost():
                return False
            while (message := self._link.receive(0)) is not None:
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
        """End the decoders, and close everything."""
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            child.reap()
        self._link.socket.disable_monitor()
        self._monitor.close(linger=0)
        self._link.socket.close(linger=LINGER_MS if self._joined else 0)
        self._context.destroy()

    def _lost(self) -> bool:
        """What the monitor says: whether the connection was lost.

        Raises:
            ClipmuxError: the server does not let this host in.
        """
        event = parse_monitor_message(self._monitor.recv_multipart())["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._joined = True
            self._host.say(f"joined {self._host.server}")
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            key = self._host.keys.public.decode()
            raise ClipmuxError(
                f"{self._host.server} does not trust this host: say there 'clipmux keys trust {_own_name()} {key!r}'"
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
            if self._children:
                return False
            raise ClipmuxError(f"{self._host.server} has no use for this host: {message.message}")
        elif not isinstance(message, Beat):
            raise MessageError(f"the supervisor sent {type(message).__name__}, which does not belong here")
        return True

    def _begin(self, order: Begin) -> None:
        ways = [Way.from_json(way) for way in order.content["clips"]]
        at = addresses_at(self._host.server, self._folder, devices=len(ways))
        ways = [replace(way, address=address, fd=-1) for way, address in zip(ways, at.clips, strict=True)]
        content = {
            **order.content,
            "clips": [way.to_json() for way in ways],
            "moved": replace(self._host.moved, base=order.content["base"]).to_json(),
        }
        peer = (str(self._host.keys.folder.resolve()), self._host.peer)
        setting = Setting(order.name, at, content, peer=peer)
        try:
            child = start_child(DECODER, MODULES[DECODER], setting, log=sys.stderr.buffer)
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
        """The run is over: its supervisor has told the decoders too."""
        deadline = time.monotonic() + STOP_S
        while self._children and time.monotonic() < deadline:
            self._reap(dict(self._poller.poll(round(TICK_S * 1000))))


def run_host(server: str, *, decoders: int, keys: Keys, peer: str, moved: Moved) -> None:
    """``DecoderHost`` as the command runs it: SIGINT and SIGTERM make it leave.

    Args:
        server: see ``DecoderHost``.
        decoders: see there.
        keys: see there.
        peer: see there; nothing: the only one that is trusted.
        moved: see there.

    Raises:
        UsageError: it is not said whom to trust.
        ClipmuxError: the server does not let it in, or cannot use it.
    """
    names = sorted(keys.trusted.values())
    if not names:
        raise UsageError(f"'{keys.folder}' trusts nobody: say the server's key with 'clipmux keys trust NAME KEY'")
    if not peer and len(names) > 1:
        raise UsageError(f"'{keys.folder}' trusts {len(names)} machines: say with --server which one it is")
    log_child(sys.stderr.fileno(), process="decoder host", form=TEXT)
    host = DecoderHost(server, decoders=decoders, keys=keys, peer=peer or names[0], moved=moved, say=_say)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: host.leave())
    host.run()


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201  (what a person at a terminal reads)


def _own_name() -> str:
    return "".join(letter for letter in socket.gethostname() if letter.isalnum() or letter in ".-") or "decoder-host"
