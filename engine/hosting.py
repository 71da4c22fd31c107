"""Children that a host elsewhere starts: on another machine, or in a container of this one.

The host (engine/far_host.py) connects, says what it has to offer, and is told what to begin and what to end. Each child
then talks to the supervisor and to the others as one of this machine does; whether it lives, its host says, and when
the host falls silent or loses its connection, all of its children are lost.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from .children import Child
from .clips import Way
from .config import JPEG, EngineConfig
from .errors import MessageError, UsageError
from .far_host import PREFIX
from .messages import Beat, Begin, Control, End, Ended, Failed, Goodbye, Join, Offer, Stop, quoted
from .processes import Processes
from .restarts import Restarts
from .wire import decode_control, encode

log = logging.getLogger(__name__)

SILENT_S = 60.0
"""A host that is not heard of for so long is given up: twice what TCP needs to go on after a link was down for 20 s."""
ASK_EVERY_S = 1.0


@dataclass
class Host:
    """Who starts children elsewhere.

    Args:
        name: of its connection, unique over all that ever connect.
        about: what its people call it.
        heard: when it last said something.
        asked: when it was last looked whether it is connected.
    """

    name: str
    about: str
    heard: float
    asked: float = 0.0
    restarts: Restarts = field(default_factory=Restarts)


@dataclass
class FarChild(Child):
    """A child that a host elsewhere has started."""

    host: str = ""
    end: Callable[[], None] = lambda: None

    def kill(self) -> None:
        if self.killed is None:
            self.end()
        super().kill()


class Hosting(Processes):
    """The processes of one engine, some of which are elsewhere."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._hosts: dict[str, Host] = {}

    @abstractmethod
    def _join(self, name: str, offer: Join | Offer) -> None:
        """A host has come: note it, and begin what it is to do; or say why not."""

    def _open(self) -> None:
        places = {"the working folder": str(Path.cwd()), "--model": self._config.model, "--keys": self._config.keys}
        for what, place in places.items():
            try:
                place.encode()
            except UnicodeEncodeError:
                raise UsageError(
                    f"{what} is {place!a}, whose name is no UTF-8, so that other hosts cannot be told: "
                    "use one whose name is"
                ) from None
        super()._open()

    def stop(self) -> list[tuple[str, dict[str, Any]]]:
        if self._context is not None:  # it is the first time
            for host in self._hosts.values():
                self._send_to(host.name, Stop())
        return super().stop()

    # -- who comes and goes --------------------------------------------------------------------------------------------

    def _hear_stranger(self, name: str, frames: list[bytes]) -> None:
        if not name.startswith(PREFIX):
            return
        message = decode_control(frames)
        host = self._hosts.get(name)
        if host is not None:
            host.heard = time.monotonic()
            self._hear_host(host, message)
        elif self._stopping:
            self._send_to(name, Stop())
        elif isinstance(message, (Join, Offer)):
            self._join(name, message)
        elif not isinstance(message, Goodbye):
            self._send_to(name, Failed("it was not heard of for too long: it joins anew"))

    def _hear_host(self, host: Host, message: Control) -> None:
        if isinstance(message, Ended):
            child = self._children.get(message.name)
            if isinstance(child, FarChild) and child.host == host.name:
                child.last_words = child.last_words or message.how
                child.blameless = child.blameless or not message.at_fault
                self._ended(child)
        elif isinstance(message, Goodbye):
            self._lose(host, "left")

    def _lose(self, host: Host, how: str) -> None:
        """A host is gone, and all of its children with it."""
        log.warning("%s (%s) %s", quoted(host.about), host.name, how)
        del self._hosts[host.name]
        for child in list(self._children.values()):
            if isinstance(child, FarChild) and child.host == host.name and child.name in self._children:
                child.last_words, child.blameless = f"was lost when its host {how}", True
                self._ended(child)

    # -- its children --------------------------------------------------------------------------------------------------

    def _begin(self, host: Host, role: str, seat: int, **besides: Any) -> None:
        """Have a host start a process; see ``_start_child``."""
        self._started += 1
        name = f"{role}-{self._started}"
        content = {**self._content(role, seat, self._ways(role, seat)), **besides, "base": str(Path.cwd())}
        content["run_folder"] = None  # nobody writes into it there
        child = FarChild(role, name, None, -1, time.monotonic(), host=host.name)
        child.seat = seat
        child.end = lambda: self._send_to(host.name, End(name))
        self._children[name] = child
        self._send_to(host.name, Begin(name, content))
        log.info("%s is started by %s", name, quoted(host.about))

    def _hear(self, child: Child, message: Control) -> None:
        super()._hear(child, message)
        if isinstance(child, FarChild):
            if (host := self._hosts.get(child.host)) is None:
                raise MessageError("its host has left")
            host.heard = time.monotonic()
            if child.left:
                self._ended(child)
            elif isinstance(message, Failed):  # which it says as the last thing that it does
                child.blameless = True

    def _watch_ends(self, now: float) -> None:
        super()._watch_ends(now)
        for host in list(self._hosts.values()):
            if now - host.heard > SILENT_S:
                self._lose(host, f"was not heard of for {SILENT_S:g} s")
            elif now - host.asked > ASK_EVERY_S:
                host.asked = now
                if not self._reaches(host.name):
                    self._lose(host, "lost its connection")

    def _reaches(self, name: str) -> bool:
        """Whether somebody of this name is connected; whoever is, is told something that he need not answer."""
        try:
            self._control.send_multipart([name.encode(), *encode(Beat())], flags=zmq.NOBLOCK)
        except zmq.Again:
            return True
        except zmq.ZMQError:
            return False
        return True

    def _excuse(self, now: float) -> None:
        super()._excuse(now)
        for host in self._hosts.values():
            host.heard = now


def far(ways: Sequence[Way], config: EngineConfig) -> list[Way]:
    """The same ways, between machines whose clocks are not the same."""
    return [dataclasses.replace(way, far=True, squeezed=config.wire == JPEG) for way in ways]
