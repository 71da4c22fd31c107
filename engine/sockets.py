"""The only place that sets socket options, so that bounds and time-outs are the same everywhere.

High-water marks are set on *both* ends, before bind or connect: what a queue may hold is the sum of the two. A linger
of a few seconds delivers the last messages (0 loses them) without hanging for ever on a peer that is gone (-1 would).
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zmq

from .wire import HEADER_MOST

LINGER_MS = 3000
CONTROL_HWM = 10_000
REPORT_HWM = 256
PATH_MOST = 100
"""Bytes of a Unix socket's path at most (sun_path has 108)."""

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


@dataclass(frozen=True)
class Addresses:
    """Where the sockets of one engine are."""

    control: str
    clips: str
    reports: str
    feed: str

    @property
    def folder(self) -> Path:
        """The folder that the sockets are in."""
        return Path(self.control.removeprefix("ipc://")).parent

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def make_addresses() -> Addresses:
    """``ipc://`` addresses in a new folder that only this user may enter; the caller calls ``remove_sockets``."""
    folder = Path(tempfile.mkdtemp(prefix="clipmux-"))
    if len(str(folder)) > PATH_MOST - 10:  # a long TMPDIR: socket paths are short by nature
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="clipmux-", dir="/tmp"))
    folder.chmod(stat.S_IRWXU)
    return Addresses(*(f"ipc://{folder}/{name}" for name in ("control", "clips", "reports", "feed")))


def remove_sockets(addresses: Addresses) -> None:
    """Remove the folder of ``make_addresses`` with what is in it."""
    shutil.rmtree(addresses.folder, ignore_errors=True)


def pull_clips(context: Context, address: str, *, hwm: int, message_bytes: int) -> Socket:
    """Inference's end of the clips: at most ``hwm`` messages held per decoder, none above ``message_bytes``."""
    return _bind(context, zmq.PULL, address, {zmq.RCVHWM: hwm, zmq.MAXMSGSIZE: message_bytes})


def push_clips(context: Context, address: str, *, hwm: int) -> Socket:
    """A decoder's end of the clips."""
    return _connect(context, zmq.PUSH, address, {zmq.SNDHWM: hwm, zmq.IMMEDIATE: 1})


def router_clips(context: Context, address: str, *, hwm: int, message_bytes: int) -> Socket:
    """Inference's end of the clips where pixels are in the clip memory; sending to a decoder that is gone raises."""
    options: dict[int, Any] = {zmq.RCVHWM: hwm, zmq.SNDHWM: hwm, zmq.ROUTER_MANDATORY: 1}
    return _bind(context, zmq.ROUTER, address, {**options, zmq.MAXMSGSIZE: message_bytes})


def dealer_clips(context: Context, address: str, name: str, *, hwm: int) -> Socket:
    """A decoder's end of the clips where pixels are in the clip memory."""
    return _connect(context, zmq.DEALER, address, {zmq.RCVHWM: hwm, zmq.SNDHWM: hwm, zmq.IDENTITY: name.encode()})


def pull_reports(context: Context, address: str) -> Socket:
    """The collector's end of scores, ends and failures."""
    return _bind(context, zmq.PULL, address, {zmq.RCVHWM: REPORT_HWM, zmq.MAXMSGSIZE: HEADER_MOST})


def push_reports(context: Context, address: str) -> Socket:
    """Whoever reports to the collector: inference, decoders, the supervisor."""
    return _connect(context, zmq.PUSH, address, {zmq.SNDHWM: REPORT_HWM})


def router(context: Context, address: str) -> Socket:
    """The supervisor's end of the control channel; sending to a child that is gone raises instead of losing."""
    options: dict[int, Any] = {zmq.RCVHWM: CONTROL_HWM, zmq.SNDHWM: CONTROL_HWM, zmq.MAXMSGSIZE: HEADER_MOST}
    return _bind(context, zmq.ROUTER, address, {**options, zmq.ROUTER_MANDATORY: 1, zmq.LINGER: 0})


def dealer(context: Context, address: str, name: str) -> Socket:
    """A child's end of the control channel."""
    options: dict[int, Any] = {zmq.RCVHWM: CONTROL_HWM, zmq.SNDHWM: CONTROL_HWM, zmq.MAXMSGSIZE: HEADER_MOST}
    options[zmq.IDENTITY] = name.encode()
    return _connect(context, zmq.DEALER, address, options)


def _bind(context: Context, kind: int, address: str, options: Mapping[Any, Any]) -> Socket:
    socket = _socket(context, kind, options)
    socket.bind(address)
    return socket


def _connect(context: Context, kind: int, address: str, options: Mapping[Any, Any]) -> Socket:
    socket = _socket(context, kind, options)
    socket.connect(address)
    return socket


def _socket(context: Context, kind: int, options: Mapping[Any, Any]) -> Socket:
    socket = context.socket(kind)
    for option, value in {zmq.LINGER: LINGER_MS, zmq.RECONNECT_IVL: 20, **options}.items():
        socket.set(option, value)
    return socket
