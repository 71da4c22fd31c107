"""A decoder host: decoders for an engine on another machine. It joins at any time and leaves at any time.

What it was at is handed out again by the supervisor.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipmux.workers.moved import Moved

from .children import DECODER
from .clips import Way
from .far_host import FarHost, own_host, say_so
from .keys import Keys, the_peer
from .logs import TEXT, log_child
from .messages import Control, Join
from .sockets import Addresses, addresses_at, split_address


class DecoderHost(FarHost):
    """Decoders for the engine at ``server``.

    Args:
        server: ``HOST:PORT`` that ``clipmux serve`` listens at.
        decoders: how many there is room for.
        keys: one's own keys, and those that are trusted.
        peer: the name that the server's key is trusted by.
        moved: where videos are here.
        fetch: they are not: their bytes come through the connection.
        say: told, in one sentence, of what changes.
    """

    def __init__(
        self,
        server: str,
        *,
        decoders: int,
        keys: Keys,
        peer: str,
        moved: Moved,
        fetch: bool = False,
        say: Callable[[str], None],
    ) -> None:
        split_address(server)
        super().__init__(server, DECODER, keys=keys, peer=peer, say=say)
        self.decoders = decoders
        self.moved = moved
        self.fetch = fetch

    def offer(self) -> Control:
        return Join(own_host(), self.decoders)

    def addresses(self, folder: Path, devices: int) -> Addresses:
        return addresses_at(self.server, folder, devices=devices)

    def content(self, told: dict[str, Any], folder: Path) -> dict[str, Any]:
        ways = [Way.from_json(way) for way in told["clips"]]
        at = self.addresses(folder, len(ways))
        ways = [replace(way, address=address, fd=-1) for way, address in zip(ways, at.clips, strict=True)]
        return {
            **told,
            "clips": [way.to_json() for way in ways],
            "moved": replace(self.moved, base=told["base"]).to_json(),
            "fetch": self.fetch,
        }


def run_host(server: str, *, decoders: int, keys: Keys, peer: str, moved: Moved, fetch: bool = False) -> None:
    """``DecoderHost`` as the command runs it: SIGINT and SIGTERM make it leave.

    Args:
        server: see ``DecoderHost``.
        decoders: see there.
        keys: see there.
        peer: see there; nothing: the only one that is trusted.
        moved: see there.
        fetch: see there.

    Raises:
        UsageError: it is not said whom to trust.
        ClipmuxError: the server does not let it in, or cannot use it.
    """
    log_child(sys.stderr.fileno(), process="decoder host", form=TEXT)
    host = DecoderHost(
        server, decoders=decoders, keys=keys, peer=the_peer(keys, peer), moved=moved, fetch=fetch, say=say_so
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: host.leave())
    host.run()
