"""A supervisor whose decoders may be on other hosts, which join and leave while it runs.

A *decoder host* (engine/decoder_host.py) says how many decoders it has room for, and is told to begin as many as there
are seats. What is lost with a host or its connection is handed out again, as often as it takes; only a decoder that
comes to grief over its video counts against that.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

from .children import DECODER, INFERENCE, Child
from .clips import Way
from .config import JPEG
from .files import FileServer
from .handouts import Handout
from .hosting import FarChild, Host, Hosting, far
from .messages import Failed, Join, Offer, quoted
from .restarts import MOST
from .supervisor import Supervisor

log = logging.getLogger(__name__)


class HostingSupervisor(Hosting, Supervisor):
    """The processes of one engine, whose decoders may be elsewhere: ``config.bind`` says where they are waited for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seats: dict[int, Host] = {}
        """Seats of decoders elsewhere, and who has them."""
        self._far_due: list[tuple[float, int]] = []
        self._files: FileServer | None = None

    def _open_sockets(self) -> None:
        super()._open_sockets()
        assert self._context is not None  # noqa: S101  (made by _open)
        self._files = FileServer(self._context, self._addresses.files)

    def _close(self) -> None:
        if self._files is not None:
            self._files.close()
            self._files = None
        super()._close()

    def _assign(self, child: Child, handout: Handout) -> None:
        if self._files is not None and isinstance(child, FarChild) and not handout.video.url:
            self._files.lend(handout.number, handout.video.path)
        super()._assign(child, handout)

    def _done(self, number: int, line: dict[str, Any]) -> None:
        if self._files is not None:
            self._files.take_back(number)
        super()._done(number, line)

    def _join(self, name: str, offer: Join | Offer) -> None:
        if not isinstance(offer, Join):
            self._send_to(
                name, Failed("it has inference of its own: it waits for decoders (clipmux decode)", usage=True)
            )
            return
        near = self._config.decoders
        free = [seat for seat in range(near, near + self._config.far_decoders) if seat not in self._seats]
        if not free:
            taken = f"all {self._config.far_decoders} places for decoders of other hosts are taken"
            self._send_to(name, Failed(taken, usage=True))
            return
        host = self._hosts[name] = Host(name, offer.host, time.monotonic())
        for seat in free[: offer.decoders]:
            self._seats[seat] = host
            self._start_decoder(seat)
        log.info("%s joined with %d decoders, as %s", quoted(offer.host), min(len(free), offer.decoders), name)

    def _lose(self, host: Host, how: str) -> None:
        self._seats = {seat: other for seat, other in self._seats.items() if other is not host}
        # Else who has the seat next would have two decoders in it, each taking the other's slots.
        self._far_due = [start for start in self._far_due if start[1] in self._seats]
        super()._lose(host, how)

    def _start_decoder(self, seat: int) -> None:
        if seat < self._config.decoders:
            super()._start_decoder(seat)
        elif (host := self._seats.get(seat)) is not None:
            jail = dataclasses.replace(self._config.jail_of(DECODER), network=True)
            self._begin(host, DECODER, seat, jail=jail.to_json())

    def _ways(self, role: str, seat: int) -> list[Way]:
        ways = super()._ways(role, seat)
        if role == DECODER and seat >= self._config.decoders:
            return far(ways, self._config)
        return [dataclasses.replace(way, squeezed=self._config.wire == JPEG and role == INFERENCE) for way in ways]

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

    def _watch(self, now: float) -> None:
        super()._watch(now)
        due = [seat for at, seat in self._far_due if at <= now]
        self._far_due = [start for start in self._far_due if start[0] > now]
        for seat in due:
            self._start_decoder(seat)
