"""Decoder hosts with networks of their own (``make far-hosts``, as root): a link goes down, one is slow, a host dies.

A server and two hosts, each in a network namespace at the end of a link of its own. One host's link is set down for a
while, which its connections outlive; the other reaches the server through a relay that lets through so many bytes a
second. A third, beside the first, is killed for good. The results must equal a local run's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from command import CLIPMUX, assert_same, clipmux, lines, results, summary

from clipmux.bench.videos import write_short_videos
from clipmux.engine.keys import make_keys, trust

SERVER, HOSTS = "clipmux-far-s", ("clipmux-far-a", "clipmux-far-b")
PORT, RELAYED, PORTS = 7600, 7700, 3
BOUND_S = 300


def address(host: int, end: int) -> str:
    return f"10.231.{80 + host}.{end}"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def inside(namespace: str, *words: object, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command in a namespace."""
    said = log.open("wb") if log else subprocess.DEVNULL
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        env={**os.environ, "COLUMNS": "200"},
    )


@contextlib.contextmanager
def network() -> Iterator[None]:
    """A server with a link to each host."""
    for namespace in (SERVER, *HOSTS):
        ip("netns", "add", namespace)
    try:
        for number, namespace in enumerate(HOSTS):
            ip("-n", SERVER, "link", "add", f"to{number}", "type", "veth", "peer", "cable", "netns", namespace)
            ip("-n", SERVER, "addr", "add", f"{address(number, 1)}/30", "dev", f"to{number}")
            ip("-n", namespace, "addr", "add", f"{address(number, 2)}/30", "dev", "cable")
            ip("-n", SERVER, "link", "set", f"to{number}", "up")
            ip("-n", namespace, "link", "set", "cable", "up")
        for namespace in (SERVER, *HOSTS):
            ip("-n", namespace, "link", "set", "lo", "up")
        yield
    finally:
        for namespace in (SERVER, *HOSTS):
            ip("netns", "del", namespace)


async def relay(port: int, bytes_per_s: float) -> None:
    """Pass on what comes to ``port + 100`` …, in both directions, no faster than this for each connection."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 14):
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(len(chunk) / bytes_per_s)
        writer.close()

    def to(target: int) -> object:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, here = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(pump(reader, here), pump(there, writer))

        return connected

    servers = [await asyncio.start_server(to(port + each), "0.0.0.0", port + 100 + each) for each in range(PORTS)]  # noqa: S104
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--down", type=float, default=20.0, help="seconds that a link is down")
    parser.add_argument("--slow", type=float, default=4e6, help="bytes/s of the slow link")
    parser.add_argument("--relay", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.relay:
        asyncio.run(relay(PORT, asked.slow))
        return
    with tempfile.TemporaryDirectory(prefix="clipmux-far-") as scratch, network():
        play(asked, Path(scratch))


def play(asked: argparse.Namespace, folder: Path) -> None:
    videos, local, run = folder / "videos", folder / "local", folder / "run"
    write_short_videos(videos, asked.videos, frames=48, size=(96, 64))
    words = (videos, "--model", "demo")
    assert clipmux("run", *words, "--output", local).returncode == 0
    server, host = make_keys(folder / "keys-server"), make_keys(folder / "keys-host")
    trust(server.folder, "decoder-host", host.public.decode())
    trust(host.folder, "server", server.public.decode())

    def decode(number: int, port: int, name: str) -> subprocess.Popen[bytes]:
        at = f"{address(number, 1)}:{port}"
        options = ("--connect", at, "--keys", host.folder, "--workers", 1)
        return inside(HOSTS[number], CLIPMUX, "decode", *options, log=folder / name)

    def done() -> int:
        file = run / "results.jsonl"
        return len(file.read_bytes().splitlines()) if file.exists() else 0

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + BOUND_S
        while done() < count:
            assert serve.poll() is None, (folder / "serve").read_text()
            assert time.monotonic() < deadline, f"{done()} of {count} after {BOUND_S} s"
            time.sleep(0.05)

    bind = ("--bind", f"0.0.0.0:{PORT}", "--keys", server.folder)
    serve = inside(SERVER, CLIPMUX, "serve", *words, *bind, "--output", run, log=folder / "serve")
    between = inside(SERVER, sys.executable, __file__, "--relay", "--slow", asked.slow)
    running = [serve, between]
    try:
        begun = time.monotonic()
        first = decode(0, PORT, "first")
        slow = decode(1, RELAYED, "slow")
        leaving = decode(0, PORT, "leaving")
        running += [first, slow, leaving]
        wait_for(asked.videos // 10)
        leaving.kill()
        print(f"{done()} of {asked.videos} videos done: one host is killed", flush=True)
        wait_for(asked.videos // 5)
        ip("-n", HOSTS[0], "link", "set", "cable", "down")
        down, before = time.monotonic(), done()
        print(f"{before} done: the link of another goes down", flush=True)
        time.sleep(asked.down)
        ip("-n", HOSTS[0], "link", "set", "cable", "up")
        print(f"{done()} done: it is up again after {time.monotonic() - down:.1f} s", flush=True)
        assert serve.wait(BOUND_S) == 0, (folder / "serve").read_text()
        print(f"the run is over after {time.monotonic() - begun:.1f} s", flush=True)
        for name, process in (("first", first), ("slow", slow)):
            assert process.wait(90) == 0, (folder / name).read_text()
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert len(lines(run / "results.jsonl")) == asked.videos
    assert_same(results(run), results(local), within=0.0)
    print(f"all {asked.videos} results equal the local run's, each once")
    log = (run / "run.log").read_text()
    told = [line.split(": ", 1)[1] for line in log.splitlines() if "clipmux.engine.host" in line]
    print(json.dumps({"restarts": summary(run)["restarts"], "hosts": told}, indent=1))


if __name__ == "__main__":
    main()
