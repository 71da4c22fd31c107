"""The only place that sets socket options, so that bounds and time-outs are the same everywhere.

High-water marks are set on *both* ends, before bind or connect: what a queue may hold is the sum of the two. A linger
of a few seconds delivers the last messages (0 loses them) without hanging for ever on a peer that is gone (-1 would).

Sockets are ``ipc://``, in a folder that only this user may enter. One that other machines are to reach binds a
``tcp://`` address besides, and there it speaks CurveZMQ or not at all: see keys.py and gate.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import zmq
from zmq.utils.monitor import parse_monitor_message

from .errors import UsageError
from .gate import DOMAIN, Gate
from .keys import Keys, read_keys
from .wire import HEADER_MOST

LINGER_MS = 3000
CURVE_BYTES = 33
"""What CurveZMQ adds to a frame: 8 bytes of command, 8 of nonce, 16 of authenticator, 1 of flags (ZeroMQ RFC 26)."""
HEARTBEAT_MS, SILENT_MS = 10_000, 60_000
"""Over TCP: an end that says nothing for so long is cut off, as one that was switched off is."""
HANDSHAKE_MS = 10_000
"""Whoever connects must have said who it is after so long, or is cut off."""
WAIT_MS = 250
"""While a queue is full, whoever waits says so as often."""
CONTROL_HWM = 10_000
REPORT_HWM = 256
FEED_HWM = 256
FILES_HWM = 8
FILES_HEADER_MOST = 1 << 10
STALE_FROM_S = 5.0
"""A younger folder may belong to an engine that is just starting or ending."""
SHORT_PLACE = Path("/tmp")  # noqa: S108  (mkdir fails if somebody else has made what we make there)
"""Where sockets are if TMPDIR is too long for them."""
PATH_MOST = 100
"""Bytes of a Unix socket's path at most (sun_path has 108)."""

IPC = "ipc://"
OUTSIDE, KEYS = ",tcp://", "?keys="

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


@dataclass(frozen=True)
class Addresses:
    """Where the sockets of one engine are.

    Each is what its owner binds, ``ipc://…``, or ``ipc://…,tcp://HOST:PORT?keys=FOLDER`` where other machines are to
    reach it too. Processes of this machine connect to the first of the two.
    """

    control: str
    reports: str
    feed: str
    clips: tuple[str, ...]
    """One for each inference process."""
    files: str = ""
    """Where decoders elsewhere read videos' files."""

    @property
    def folder(self) -> Path:
        """The folder that the sockets are in; of a process that a host elsewhere started: one of that host."""
        return _folder(self.feed)

    @property
    def gone(self) -> bool:
        """The engine has removed its sockets, as far as that can be seen from here."""
        return self.control.startswith(IPC) and not _folder(self.control).exists()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Addresses:
        return cls(**{**content, "clips": tuple(content["clips"])})


def make_addresses(outside: str = "", keys: Path | None = None, *, devices: int = 1) -> Addresses:
    """``name_addresses``, with their folder; the caller calls ``remove_sockets``.

    Raises:
        UsageError: see there.
        OSError: the folder cannot be made.
    """
    addresses = name_addresses(outside, keys, devices=devices)
    make_folder(addresses)
    return addresses


def make_folder(addresses: Addresses) -> None:
    """Make the folder that the sockets are to be in, which only this user may enter.

    Raises:
        OSError: it cannot be made.
    """
    scratch().stat()  # what TMPDIR names must be there, also where it is too long to be used
    addresses.folder.mkdir(mode=stat.S_IRWXU)
    addresses.folder.chmod(stat.S_IRWXU)


def _clear(folder: Path) -> None:
    """Remove what an engine that was killed has left in a folder that it was told to have.

    Raises:
        UsageError: it is something else, or in use.
    """
    ours = re.compile(r"control|reports|feed|files|clips-\d+")
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder of sockets: give one that is not there")
    paths = list(folder.iterdir())
    if not all(path.is_socket() and ours.fullmatch(path.name) for path in paths):
        raise UsageError(f"'{folder}' is no folder of sockets of an engine: give one that is not there")
    if any(map(_listens, paths)):
        raise UsageError(f"'{folder}' has the sockets of an engine that runs: give another folder that is not there")
    shutil.rmtree(folder)


def remove_stale() -> None:
    """Remove folders of engines that were killed together with all of their children: nobody listens there any more."""
    places = {scratch(), SHORT_PLACE}
    for folder in (folder for place in places for folder in place.glob("clipmux-*")):
        if re.fullmatch(r"clipmux-[0-9a-f]{12}(-ended)?", folder.name) is None:
            continue
        with contextlib.suppress(OSError):  # another's, or just being removed
            status = folder.lstat()
            mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if mine and time.time() - status.st_mtime > STALE_FROM_S and not _listens(folder / "control"):
                shutil.rmtree(folder, ignore_errors=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
            return False
    return True


def scratch() -> Path:
    """Where temporary files are.

    Raises:
        UsageError: there is no such place, as on a machine that nothing can be written on.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise UsageError("no folder for temporary files can be written: let TMPDIR name one") from None


def _fits(folder: Path) -> bool:
    """Sockets can be in this folder: their paths are short by nature, and ZeroMQ takes them as UTF-8."""
    try:
        return len(str(folder).encode()) <= PATH_MOST - 10
    except UnicodeEncodeError:
        return False


def name_addresses(outside: str = "", keys: Path | None = None, *, devices: int = 1) -> Addresses:
    """``ipc://`` addresses in a folder that is not there yet.

    Args:
        outside: ``HOST:PORT`` to be reached at by other machines too: control at this port, reports at the next, the
            clips of each inference process at one of those after it, and files at the one after those; nothing: not so.
        keys: the folder of keys for that.
        devices: inference processes.

    Raises:
        UsageError: that is not an address, there are no keys for it, or there is no place for the folder.
    """
    clips = [f"clips-{number}" for number in range(devices)]
    ports = _ports(outside, keys, ["control", "reports", *clips, "files"]) if outside else {}
    name = f"clipmux-{secrets.token_hex(6)}"
    folder = scratch() / name
    if not _fits(folder):
        folder = SHORT_PLACE / name

    def at(name: str) -> str:
        return f"ipc://{folder}/{name}{ports.get(name, '')}"

    return Addresses(at("control"), at("reports"), at("feed"), tuple(map(at, clips)), at("files"))


def own_addresses_in(folder: Path, *, devices: int) -> Addresses:
    """``addresses_in``, for the engine itself: the folder is not there yet, or not any more.

    Raises:
        UsageError: it is something else, in use or too long, or cannot be made.
    """
    addresses = addresses_in(folder, devices=devices)
    try:
        place = folder.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"'{folder}' cannot be made: '{place}' is no folder that may be written to, give another")
        if folder.exists():
            _clear(folder)
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be had for sockets ({error.strerror}): give another folder") from None
    return addresses


def addresses_in(folder: Path, *, devices: int) -> Addresses:
    """The sockets of an engine that was told where to have them.

    Raises:
        UsageError: the path is too long, or no UTF-8.
    """
    if not _fits(folder):
        raise UsageError(
            f"'{folder}' is too long for sockets ({PATH_MOST - 10} bytes of UTF-8 at most): give a shorter path"
        )
    names = ("control", "reports", "feed", *(f"clips-{number}" for number in range(devices)))
    at = [f"ipc://{folder}/{name}" for name in names]
    return Addresses(at[0], at[1], at[2], tuple(at[3:]))


def addresses_at(server: str, folder: Path, *, devices: int) -> Addresses:
    """The same sockets, as another machine reaches them: see ``make_addresses``.

    Args:
        server: ``HOST:PORT`` that they listen at.
        folder: of this machine, for those that are not reached by others.
        devices: inference processes.
    """
    host, first = split_address(server)
    at = [f"tcp://{host}:{port}" for port in range(first, first + 3 + devices)]
    return Addresses(at[0], at[1], f"ipc://{folder}/feed", tuple(at[2:-1]), at[-1])


def split_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, with or without ``tcp://``.

    Raises:
        UsageError: something else.
    """
    match = re.fullmatch(r"(?:tcp://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", text)
    if match is None or not 0 < int(match[2]) <= 65535:
        raise UsageError(f"'{text}' is not an address: give HOST:PORT, for example 10.0.0.7:7600")
    return match[1], int(match[2])


def _ports(outside: str, keys: Path | None, names: Sequence[str]) -> dict[str, str]:
    host, first = split_address(outside)
    if first > 65535 - len(names) + 1:
        raise UsageError(f"'{outside}' has no {len(names)} ports from there on: give a lower one")
    if keys is None:
        raise UsageError(f"listening at '{outside}' needs keys: make them with 'clipmux keys new'")
    read_keys(keys)  # that they can be used is found out now, not by the first process that listens
    return {name: f"{OUTSIDE}{host}:{first + index}{KEYS}{keys}" for index, name in enumerate(names)}


def outside_only(server: str, keys: Path, *, devices: int) -> tuple[str, ...]:
    """What to bind so that other machines alone reach it, a port for each device from that of ``server`` on.

    Raises:
        UsageError: that is not an address, or there are no keys for it.
    """
    return tuple(_ports(server, keys, [str(number) for number in range(devices)]).values())


def _folder(address: str) -> Path:
    return Path(address[len(IPC) :]).parent


def _inside(address: str) -> str:
    return address.partition(OUTSIDE)[0]


def remove_sockets(addresses: Addresses) -> None:
    """Remove the folder of ``make_addresses`` with what is in it."""
    shutil.rmtree(addresses.folder, ignore_errors=True)


def router_clips(context: Context, address: str, *, hwm: int, message_bytes: int) -> Socket:
    """Inference's end of the clips: none above ``message_bytes``; sending to a decoder that is gone raises."""
    options: dict[int, Any] = {zmq.RCVHWM: hwm, zmq.SNDHWM: hwm, zmq.ROUTER_MANDATORY: 1}
    return _bind(context, zmq.ROUTER, address, {**options, zmq.MAXMSGSIZE: message_bytes})


def dealer_clips(context: Context, address: str, name: str, *, hwm: int) -> Socket:
    """A decoder's end of the clips."""
    options: dict[int, Any] = {zmq.RCVHWM: hwm, zmq.SNDHWM: hwm, zmq.MAXMSGSIZE: HEADER_MOST}
    return _connect(context, zmq.DEALER, address, {**options, zmq.IDENTITY: name.encode()})


def router_files(context: Context, address: str) -> Socket:
    """The file server's end."""
    options: dict[int, Any] = {zmq.RCVHWM: FILES_HWM, zmq.SNDHWM: FILES_HWM, zmq.MAXMSGSIZE: FILES_HEADER_MOST}
    return _bind(context, zmq.ROUTER, address, options)


def dealer_files(context: Context, address: str, *, part_bytes: int) -> Socket:
    """A decoder's end of the files."""
    most = max(FILES_HEADER_MOST, part_bytes) + CURVE_BYTES
    return _connect(context, zmq.DEALER, address, {zmq.RCVHWM: FILES_HWM, zmq.MAXMSGSIZE: most, zmq.LINGER: 0})


def pull_reports(context: Context, address: str) -> Socket:
    """The collector's end of scores, ends and failures."""
    return _bind(context, zmq.PULL, address, {zmq.RCVHWM: REPORT_HWM, zmq.MAXMSGSIZE: HEADER_MOST})


def push_reports(context: Context, address: str) -> Socket:
    """Whoever reports to the collector: inference, decoders, the supervisor."""
    return _connect(context, zmq.PUSH, address, {zmq.SNDHWM: REPORT_HWM})


def publish_feed(context: Context, address: str) -> Socket:
    """The watcher's end of what pages show; a page that does not keep up misses some of it."""
    return _bind(context, zmq.PUB, address, {zmq.SNDHWM: FEED_HWM})


def subscribe_feed(context: Context, address: str) -> Socket:
    """A page's end of what it shows."""
    options: dict[int, Any] = {zmq.RCVHWM: FEED_HWM, zmq.MAXMSGSIZE: HEADER_MOST, zmq.SUBSCRIBE: b""}
    return _connect(context, zmq.SUB, address, options)


def send_waiting(socket: Socket, frames: Sequence[Any], say: Callable[[], None]) -> None:
    """Send; while the queue is full or nobody is connected, ``say`` that this is waiting, not stalling."""
    while not socket.poll(WAIT_MS, zmq.POLLOUT):
        say()
    socket.send_multipart(frames)


def router(context: Context, address: str) -> Socket:
    """The supervisor's end of the control channel; sending to a child that is gone raises instead of losing."""
    options: dict[int, Any] = {zmq.RCVHWM: CONTROL_HWM, zmq.SNDHWM: CONTROL_HWM, zmq.MAXMSGSIZE: HEADER_MOST}
    return _bind(context, zmq.ROUTER, address, {**options, zmq.ROUTER_MANDATORY: 1, zmq.LINGER: 0})


def dealer(context: Context, address: str, name: str) -> Socket:
    """A child's end of the control channel."""
    options: dict[int, Any] = {zmq.RCVHWM: CONTROL_HWM, zmq.SNDHWM: CONTROL_HWM, zmq.MAXMSGSIZE: HEADER_MOST}
    options[zmq.IDENTITY] = name.encode()
    return _connect(context, zmq.DEALER, address, options)


_gates: WeakKeyDictionary[Context, Gate] = WeakKeyDictionary()
_peers: WeakKeyDictionary[Context, tuple[Keys, bytes]] = WeakKeyDictionary()
_cut_off: WeakKeyDictionary[Context, Callable[[str], None]] = WeakKeyDictionary()


def approach(context: Context, keys: Keys, name: str, *, cut_off: Callable[[str], None] | None = None) -> None:
    """Let sockets of this context connect over TCP, to nobody but the peer that is trusted under this name.

    Args:
        context: of the process.
        keys: one's own, and the allow-list.
        name: of the peer.
        cut_off: called with an address, from another thread, when the connection to it is lost. ZeroMQ makes another by
            itself, but what was on its way is lost, and neither end hears of that.

    Raises:
        UsageError: none is.
    """
    server = next((key for key, known in keys.trusted.items() if known == name), None)
    if server is None:
        raise UsageError(f"'{name}' is not trusted: say its key with 'clipmux keys trust {name} KEY'")
    _peers[context] = (keys, server)
    if cut_off is not None:
        _cut_off[context] = cut_off


def _bind(context: Context, kind: int, address: str, options: Mapping[Any, Any]) -> Socket:
    """Bind what ``Addresses`` says. Options hold for what is bound after them: only TCP speaks CurveZMQ."""
    inside, _, outside = address.partition(OUTSIDE)
    place, _, folder = outside.partition(KEYS)
    if inside.startswith("tcp://") or (outside and not folder):
        # Every user of a machine can connect to its loopback address too.
        raise UsageError(f"'{address}' cannot be bound without keys: make them with 'clipmux keys new'")
    socket = _socket(context, kind, options)
    if inside:
        socket.bind(inside)
    if outside:
        try:
            _bind_outside(context, socket, f"tcp://{place}", Path(folder))
        except BaseException:
            socket.close(linger=0)
            raise
    return socket


def _bind_outside(context: Context, socket: Socket, address: str, folder: Path) -> None:
    if (gate := _gates.get(context)) is None:
        gate = _gates[context] = Gate(context, read_keys(folder))
    own: dict[int, Any] = {zmq.CURVE_SERVER: 1, zmq.CURVE_SECRETKEY: gate.keys.secret, zmq.ZAP_DOMAIN: DOMAIN}
    own[zmq.MAXMSGSIZE] = int(socket.get(zmq.MAXMSGSIZE)) + CURVE_BYTES
    for option, value in {**own, **_over_tcp(address)}.items():
        socket.set(option, value)
    gate.watch(socket, address)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise UsageError(f"'{address}' cannot be listened at ({error}): give another address or port") from None


def _connect(context: Context, kind: int, address: str, options: Mapping[Any, Any]) -> Socket:
    address = _inside(address)
    if address.startswith("tcp://"):
        if context not in _peers:
            raise UsageError(f"'{address}' cannot be connected to without keys: make them with 'clipmux keys new'")
        keys, server = _peers[context]
        curve: dict[int, Any] = {
            zmq.CURVE_SERVERKEY: server,
            zmq.CURVE_PUBLICKEY: keys.public,
            zmq.CURVE_SECRETKEY: keys.secret,
        }
        options = {**options, **curve, **_over_tcp(address)}
    socket = _socket(context, kind, options)
    if (cut_off := _cut_off.get(context)) is not None and address.startswith("tcp://"):
        _watch_connection(context, socket, partial(cut_off, address))
    socket.connect(address)
    return socket


def _over_tcp(address: str) -> dict[int, Any]:
    return {
        zmq.IPV6: int("[" in address),
        zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
        zmq.HEARTBEAT_TIMEOUT: SILENT_MS,
        zmq.HEARTBEAT_TTL: SILENT_MS,
    }


def _watch_connection(context: Context, socket: Socket, cut_off: Callable[[], None]) -> None:
    """Call ``cut_off``, from a thread of its own, once this socket has lost its connection."""
    place = f"inproc://connection-{id(socket)}-{time.monotonic_ns()}"
    socket.monitor(place, zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED)
    # A context of the same depth that does not know of this socket: it is closed here, not by its owner.
    shadow: Context = zmq.Context.shadow(context.underlying)
    monitor: Socket = shadow.socket(zmq.PAIR)
    monitor.set(zmq.LINGER, 0)
    monitor.connect(place)

    def watch() -> None:
        with contextlib.suppress(zmq.ContextTerminated):
            if parse_monitor_message(monitor.recv_multipart())["event"] == zmq.EVENT_DISCONNECTED:
                cut_off()
        monitor.close()

    threading.Thread(target=watch, name="connection", daemon=True).start()


def _socket(context: Context, kind: int, options: Mapping[Any, Any]) -> Socket:
    socket = context.socket(kind)
    own = {zmq.LINGER: LINGER_MS, zmq.RECONNECT_IVL: 20, zmq.HANDSHAKE_IVL: HANDSHAKE_MS}
    for option, value in {**own, **options}.items():
        socket.set(option, value)
    return socket
