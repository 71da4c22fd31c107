"""A supervisor whose decoders may be on other hosts, which join and leave while it runs.

A *decoder host* (engine/decoder_host.py) connects over TCP, says how many decoders it has room for, and is told to
begin as many as there are seats. Each of them then talks to the supervisor, to inference and to the collector as one of
this machine does; whether it lives, its host says, and when the host itself falls silent, all of its decoders are lost.
What is lost with a host or its connection is handed out again, as often as it takes; only a decoder that comes to grief
over its video counts against that.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from .children import DECODER, Child
from .errors import MessageError
from .jail import Jail
from .messages import Beat, Begin, Control, End, Ended, Failed, Goodbye, Join, Stop, quoted
from .restarts import MOST, Restarts
from .supervisor import Supervisor
from .wire import decode_control, encode

log = logging.getLogger(__name__)

SILENT_S = 60.0
"""A host that is not heard of for so long is given up: twice what TCP needs to go on after a link was down for 20 s."""
ASK_EVERY_S = 1.0
PREFIX = "host-"


@dataclass
class Host:
    """A decoder host.

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
    """A decoder that a host elsewhere has started."""

    host: str = ""
    end: Callable[[], None] = lambda: None

    def kill(self) -> None:
        if self.killed is None:
            self.end()
        super().kill()


class HostingSupervisor(Supervisor):
    """The processes of one engine, whose decoders may be elsewhere: ``config.bind`` says where they are waited for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._hosts: dict[str, Host] = {}
        self._seats: dict[int, Host] = {}
        """Seats of decoders elsewhere, and who has them."""
        self._far_due: list[tuple[float, int]] = []

    def stop(self) -> list[tuple[str, dict[str, Any]]]:
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
        elif isinstance(message, Join):
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

    def _join(self, name: str, join: Join) -> None:
        near = self._config.decoders
        free = [seat for seat in range(near, near + self._config.far_decoders) if seat not in self._seats]
        if not free:
            self._send_to(name, Failed(f"all {self._config.far_decoders} places for decoders of other hosts are taken"))
            return
        host = self._hosts[name] = Host(name, join.host, time.monotonic())
        for seat in free[: join.decoders]:
            self._seats[seat] = host
            self._start_decoder(seat)
        log.info("%s joined with %d decoders, as %s", quoted(join.host), min(len(free), join.decoders), name)

    def _lose(self, host: Host, how: str) -> None:
        """A host is gone, and all of its decoders with it."""
        log.warning("%s (%s) %s", quoted(host.about), host.name, how)
        del self._hosts[host.name]
        self._seats = {seat: other for seat, other in self._seats.items() if other is not host}
        for child in list(self._children.values()):
            if isinstance(child, FarChild) and child.host == host.name:
                child.last_words, child.blameless = f"was lost when its host {how}", True
                self._ended(child)

    # -- its decoders --------------------------------------------------------------------------------------------------

    def _start_decoder(self, seat: int) -> None:
        if seat < self._config.decoders:
            super()._start_decoder(seat)
        elif (host := self._seats.get(seat)) is not None:
            self._begin(host, seat)

    def _begin(self, host: Host, seat: int) -> None:
        self._started += 1
        name = f"{DECODER}-{self._started}"
        ways = [dataclasses.replace(way, far=True) for way in self._ways(DECODER, seat)]
        content = self._content(DECODER, seat, ways)
        content["jail"] = dataclasses.replace(Jail.from_json(content["jail"]), network=True).to_json()
        content["base"] = str(Path.cwd())
        child = FarChild(DECODER, name, None, -1, time.monotonic(), host=host.name)
        child.seat = seat
        child.end = lambda: self._send_to(host.name, End(name))
        self._children[name] = child
        self._send_to(host.name, Begin(name, content))
        log.info("%s is started by %s", name, quoted(host.about))

    def _restart(self, child: Child, how: str) -> None:
        if not isinstance(child, FarChild):
            super()._restart(child, how)
        elif (host := self._seats.get(child.seat)) is not None:
            now = time.monotonic()
            wait = host.restarts.wait(now, progressed=self._progressed)
            if wait is None:
                log.error("%s of %s %s, and %d restarts did not help", child.name, quoted(host.about), how, MOST)
                del self._seats[child.seat]
            else:
                self._far_due.append((now + wait, child.seat))

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

    def _watch(self, now: float) -> None:
        super()._watch(now)
        for host in list(self._hosts.values()):
            if now - host.heard > SILENT_S:
                self._lose(host, f"was not heard of for {SILENT_S:g} s")
            elif now - host.asked > ASK_EVERY_S:
                host.asked = now
                if not self._reaches(host.name):
                    self._lose(host, "lost its connection")
        due = [seat for at, seat in self._far_due if at <= now]
        self._far_due = [start for start in self._far_due if start[0] > now]
        for seat in due:
            self._start_decoder(seat)

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
