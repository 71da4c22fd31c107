"""How a child process begins and ends, whatever its role.

Its settings come as one line of JSON on standard input (``jail.begin`` reads it), which then stays open as the death
pipe: when it ends, the supervisor is gone, however it died, and the child goes too (engine/orphans.py). Nothing is
inherited but that, an open log as standard error, a standard output whose closing tells the supervisor that the child
has ended, the descriptor of the trace where there is one, and for those whom clips concern those of the clip memories.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import zmq

from .control import Link
from .errors import ClipmuxError, UsageError
from .keys import read_keys
from .logs import TEXT, log_child
from .messages import Failed
from .orphans import ORPHANED, end_the_others
from .sockets import Addresses, Context, approach

log = logging.getLogger(__name__)

CUT_OFF = 71
"""Exit status of a child that has lost a connection to its engine: what was on its way is lost, unnoticed by others."""

LAST_WORDS_MOST = 4000
"""Characters of an error that the supervisor is told: the longest path, or a few sentences."""


@dataclass(frozen=True)
class Setting:
    """What every child is started with.

    Args:
        name: this child's name, unique over all that ever connect.
        addresses: where to connect or bind.
        content: what the role itself needs, as JSON.
        log_format: how to write the log.
        trace: the inherited descriptor of the trace's file; -1 where there is none.
        peer: for one whose engine is on another machine: the folder of keys, and the name that machine is trusted by.
    """

    name: str
    addresses: Addresses
    content: dict[str, Any]
    log_format: str = TEXT
    trace: int = -1
    peer: tuple[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "addresses": self.addresses.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Setting:
        peer = content["peer"]
        addresses = Addresses.from_json(content["addresses"])
        return cls(**{**content, "addresses": addresses, "peer": None if peer is None else tuple(peer)})


_leaving = threading.Lock()
"""Taken, for good, by the thread that ends this process: one that is ending the others finishes that."""


class Role(Protocol):
    """A module that is a role: ``run`` works until it is told to stop."""

    def run(self, setting: Setting, context: Context, link: Link) -> None: ...


def main(module: str, told: dict[str, Any]) -> None:
    """Be the role that ``module`` implements, set as it was told, then exit."""
    faulthandler.enable()
    _keep_standard_output_open()
    setting = Setting.from_json(told)
    log_child(sys.stderr.fileno(), process=setting.name, form=setting.log_format)
    threading.Thread(target=_die_with_parent, args=(setting.addresses,), name="death-pipe", daemon=True).start()
    context = zmq.Context()
    if setting.peer is not None:
        folder, server = setting.peer
        approach(context, read_keys(Path(folder)), server, cut_off=_cut_off)
    link = Link(context, setting.addresses.control, setting.name)
    status = 0
    try:
        role = cast(Role, importlib.import_module(module))
        role.run(setting, context, link)
    except ClipmuxError as error:
        link.send(Failed(last_words(str(error)), usage=isinstance(error, UsageError)))
        status = 1
    except Exception as error:
        if setting.addresses.gone:
            _leave(ORPHANED)  # the first to hear of the supervisor's death has removed it, whatever the error says
        log.exception("an unexpected error ends this process")
        link.send(Failed(last_words(f"{type(error).__name__}: {error}", " (the log has more)")))
        status = 1
    link.close()
    context.destroy()
    with contextlib.suppress(OSError):  # the disk of the log is full
        sys.stderr.flush()
    _leave(status)


def last_words(why: str, remark: str = "") -> str:
    """A text that can be sent, whatever it quotes: names of files may hold halves of characters, and be long."""
    why = why.encode(errors="backslashreplace").decode()
    if len(why) > LAST_WORDS_MOST:
        why = f"{why[:LAST_WORDS_MOST]}…"
    return why + remark


def _leave(status: int) -> NoReturn:
    """End this process. Interpreters with native threads (codecs, devices) do not always end by themselves."""
    _leaving.acquire()
    os._exit(status)


def _keep_standard_output_open() -> None:
    """Let native libraries print to the log: the pipe itself only tells, by closing, that this process has ended."""
    os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _cut_off(address: str) -> None:
    log.warning("the connection to %s is lost", address)
    _leave(CUT_OFF)


def _die_with_parent(addresses: Addresses) -> None:
    sys.stdin.buffer.read()
    _leaving.acquire()
    end_the_others(addresses.folder)
    os._exit(ORPHANED)
