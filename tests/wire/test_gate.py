"""Over TCP nobody gets in whose key is not trusted, and the log says who tried."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from ports import free_ports
from zmq.utils import z85

from clipmux.engine.errors import UsageError
from clipmux.engine.gate import LINES_MOST, REMEMBERED, SAY_AGAIN_S, TurnedAway
from clipmux.engine.keys import Keys, make_keys, read_keys, trust
from clipmux.engine.messages import Hello
from clipmux.engine.sockets import (
    HANDSHAKE_MS,
    Addresses,
    Context,
    Socket,
    approach,
    dealer,
    make_addresses,
    remove_sockets,
    router,
)
from clipmux.engine.wire import decode_control, encode


@pytest.fixture
def context() -> Iterator[Context]:
    """A context that must be able to terminate, with whoever stands at its gate."""
    context = zmq.Context()
    yield context
    ending = threading.Thread(target=context.term, daemon=True)
    ending.start()
    ending.join(timeout=10)
    if ending.is_alive():
        pytest.fail("the context did not terminate within 10 s: a socket was left open")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "server")


@pytest.fixture
def addresses(keys: Keys) -> Iterator[Addresses]:
    """With TCP at three free ports that follow each other."""
    addresses = make_addresses(f"127.0.0.1:{free_ports(3)}", keys.folder)
    yield addresses
    remove_sockets(addresses)


def outside(addresses: Addresses) -> str:
    """The TCP address of the control socket."""
    return addresses.control.partition(",")[2].partition("?")[0]


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_who_is_trusted_gets_in_and_so_does_this_machine(context: Context, keys: Keys, tmp_path: Path) -> None:
    client = make_keys(tmp_path / "client")
    trust(keys.folder, "client", client.public.decode())
    trust(client.folder, "server", keys.public.decode())
    addresses = make_addresses(f"127.0.0.1:{free_ports(3)}", keys.folder)
    there: Context = zmq.Context()
    approach(there, read_keys(client.folder), "server")
    with (
        router(context, addresses.control) as server,
        dealer(context, addresses.control, "inside") as inside,
        dealer(there, outside(addresses), "client") as remote,
    ):
        for peer, name in ((inside, b"inside"), (remote, b"client")):
            peer.send_multipart(encode(Hello({"name": name.decode()})))
            assert server.poll(10_000)
            sender, *frames = server.recv_multipart()
            assert (sender, decode_control(frames)) == (name, Hello({"name": name.decode()}))
            server.send_multipart([name, *encode(Hello())])
            assert peer.poll(10_000)
    there.term()
    remove_sockets(addresses)


def knock(there: Context, address: str, server: bytes | None, pair: tuple[bytes, bytes] | None) -> Socket:
    """Someone who connects by hand, with a key or without."""
    peer: Socket = there.socket(zmq.DEALER)
    peer.set(zmq.LINGER, 0)
    peer.set(zmq.IDENTITY, b"decoder-3")
    if pair is not None and server is not None:
        peer.set(zmq.CURVE_SERVERKEY, server)
        peer.set(zmq.CURVE_PUBLICKEY, pair[0])
        peer.set(zmq.CURVE_SECRETKEY, pair[1])
    peer.connect(address)
    return peer


def test_who_is_not_gets_nothing_through_and_is_named(
    context: Context, addresses: Addresses, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "clipmux")
    stranger, wrong = zmq.curve_keypair(), zmq.curve_keypair()[0]
    there: Context = zmq.Context()
    with router(context, addresses.control) as server:
        peers = [
            knock(there, outside(addresses), keys.public, stranger),  # a key, and nobody trusts it
            knock(there, outside(addresses), wrong, stranger),  # who does not know whom it talks to
            knock(there, outside(addresses), None, None),  # who has no key at all
        ]
        for peer in peers:
            peer.send_multipart(encode(Hello()))
        assert eventually(lambda: f"its key {stranger[0].decode()} is not trusted" in caplog.text)
        assert eventually(lambda: "does not speak CurveZMQ" in caplog.text)
        assert not server.poll(300)
        assert "127.0.0.1:" in caplog.text
        assert keys.secret.decode() not in caplog.text
        for peer in peers:
            peer.close()
    there.term()


def test_garbage_half_handshakes_and_floods_keep_nobody_out(
    context: Context, addresses: Addresses, keys: Keys, tmp_path: Path
) -> None:
    host, port = outside(addresses).removeprefix("tcp://").split(":")
    good = make_keys(tmp_path / "good")
    trust(keys.folder, "good", good.public.decode())
    trust(good.folder, "server", keys.public.decode())
    there: Context = zmq.Context()
    with router(context, addresses.control) as server:
        silent = [socket.create_connection((host, int(port))) for _ in range(50)]
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
        for index, sent in enumerate([b"GET / HTTP/1.1\r\n\r\n", greeting, bytes(1 << 16), os.urandom(1 << 16)] * 10):
            with socket.create_connection((host, int(port))) as peer:
                peer.settimeout(0.2)
                try:
                    peer.sendall(sent)
                    if index % 2:  # read what comes, and go
                        peer.recv(1 << 16)
                except OSError:
                    pass
        approach(there, read_keys(good.folder), "server")
        with dealer(there, outside(addresses), "good") as friend:
            friend.send_multipart(encode(Hello()))
            assert server.poll(10_000)
            assert server.recv_multipart()[0] == b"good"
        assert not server.poll(100)
        for one in silent:
            one.close()
    there.term()


def test_a_handshake_has_a_deadline(context: Context, addresses: Addresses) -> None:
    with router(context, addresses.control) as server:
        assert server.get(zmq.HANDSHAKE_IVL) == HANDSHAKE_MS


def test_nothing_is_bound_to_tcp_without_keys(context: Context, tmp_path: Path) -> None:
    for address in ("tcp://127.0.0.1:7600", "ipc:///tmp/x,tcp://127.0.0.1:7600"):
        with pytest.raises(UsageError, match="clipmux keys new"):
            router(context, address)
    with pytest.raises(UsageError, match="clipmux keys new"):
        dealer(context, "tcp://127.0.0.1:7600", "name")
    with pytest.raises(UsageError, match="clipmux keys new"):
        make_addresses("127.0.0.1:7600", tmp_path / "none")
    with pytest.raises(UsageError, match="clipmux keys new"):
        make_addresses("127.0.0.1:7600")
    for wrong in ("7600", "host", "host:0", "a b:7600", "[::1:7600", "tcp://*:7600"):
        with pytest.raises(UsageError, match="not an address"):
            make_addresses(wrong, make_keys(tmp_path / f"keys{len(wrong)}{wrong[:1]}{wrong[-1]}").folder)
    with pytest.raises(UsageError, match="has no 6 ports from there on"):
        make_addresses("host:65532", make_keys(tmp_path / "keys").folder, devices=3)


def test_an_address_that_is_taken_is_said(context: Context, keys: Keys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = make_addresses(f"127.0.0.1:{taken.getsockname()[1]}", keys.folder)
        with pytest.raises(UsageError, match="give another address or port"):
            router(context, addresses.control)
        remove_sockets(addresses)


# --- the folder of keys ----------------------------------------------------------------------------------------------


def test_keys_are_for_this_user_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "keys"
    made = make_keys(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "own.public": 0o600,
        "own.secret": 0o600,
        "trusted": 0o700,
    }
    assert read_keys(folder) == made
    assert made.secret.decode() not in repr(made)
    with pytest.raises(UsageError, match="there already"):
        make_keys(folder)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow, nearly as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_no_half_of_a_key(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    with full_disk(), pytest.raises(UsageError, match="cannot be written"):
        make_keys(folder)
    keys = make_keys(folder)
    with full_disk(), pytest.raises(UsageError, match="cannot be written"):
        trust(folder, "peer", zmq.curve_keypair()[0].decode())
    assert read_keys(folder) == keys


def test_half_of_a_pair_that_is_there_is_not_made_whole(tmp_path: Path) -> None:
    folder = make_keys(tmp_path / "keys").folder
    (folder / "own.secret").unlink()
    with pytest.raises(UsageError, match=r"own\.public' is there already"):
        make_keys(folder)
    assert not (folder / "own.secret").exists()


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(UsageError, match="chmod 700"):
        make_keys(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o755
    assert not list((tmp_path / "keys").iterdir())


def test_no_key_of_ours_looks_like_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [zmq.curve_keypair() for _ in range(1000)]
    pairs.sort(key=lambda pair: not pair[0].startswith(b"-"))  # those first
    assert pairs[0][0].startswith(b"-")
    with monkeypatch.context() as patch:
        patch.setattr(zmq, "curve_keypair", iter(pairs).__next__)
        assert not make_keys(tmp_path / "keys").public.startswith(b"-")


@pytest.mark.parametrize("name", ["", "own.secret", "own.public", "trusted", "trusted/peer.public"])
def test_keys_that_others_may_use_are_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    trust(keys.folder, "peer", zmq.curve_keypair()[0].decode())
    path = keys.folder / name
    path.chmod(0o755 if path.is_dir() else 0o640)
    with pytest.raises(UsageError) as caught:
        read_keys(keys.folder)
    assert f"chmod {'700' if path.is_dir() else '600'} '{path}'" in str(caught.value)


def test_what_is_no_key_is_said(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    for wrong in ("", "short", "x" * 39 + "é", "~" * 40, " " * 40, "%" * 40, "#" * 40):
        with pytest.raises(UsageError, match="40 characters of Z85"):
            trust(keys.folder, "peer", wrong)
    for name in ("", "../up", "a/b", "-x", ".x", "x" * 65, "ü"):
        with pytest.raises(UsageError, match="cannot be called"):
            trust(keys.folder, name, keys.public.decode())
    other = zmq.curve_keypair()[0]
    trust(keys.folder, "peer", other.decode())
    trust(keys.folder, "peer", other.decode())  # again is well
    with pytest.raises(UsageError, match="another key"):
        trust(keys.folder, "peer", zmq.curve_keypair()[0].decode())
    with pytest.raises(UsageError, match="already, as 'peer'"):
        trust(keys.folder, "twin", other.decode())
    assert read_keys(keys.folder).trusted == {other: "peer"}
    (keys.folder / "own.public").write_bytes(z85.encode(bytes(32)))
    with pytest.raises(UsageError, match="does not belong"):
        read_keys(keys.folder)


# --- the log ---------------------------------------------------------------------------------------------------------


def test_a_crowd_is_counted_not_listed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "clipmux")
    away = TurnedAway()
    for index in range(5 * REMEMBERED):
        away.add(f"10.0.{index // 250}.{index % 250}:40000", "it shows no key", now=0.0)
    assert len(caplog.records) == LINES_MOST
    assert len(away._tries) == REMEMBERED
    away.add("10.9.9.9:1", "it shows no key", now=SAY_AGAIN_S + 1)
    assert f"and {5 * REMEMBERED - LINES_MOST} others" in caplog.messages[-1]


def test_the_same_peer_is_named_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "clipmux")
    away = TurnedAway()
    for index in range(100):
        away.add(f"10.0.0.1:{40000 + index}", "it shows no key", now=float(index) / 10)
    assert len(caplog.records) == 1
    away.add("10.0.0.1:9", "it shows no key", now=SAY_AGAIN_S)
    assert "100 times" in caplog.messages[-1]
