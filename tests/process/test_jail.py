"""What a decoder that has been taken over can still do; and that one which has not does not notice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from command import clipmux, results, summary

from clipmux.bench.videos import write_short_videos
from clipmux.engine.child import Setting
from clipmux.engine.children import DECODER, describe_exit, start_child
from clipmux.engine.jail import OFF, ON, Jail, filter_program, kernel_gives
from clipmux.engine.messages import Hello, Stop
from clipmux.engine.sockets import make_addresses, remove_sockets, router
from clipmux.engine.wire import decode_control, encode

KERNEL = kernel_gives()
needs_all = pytest.mark.skipif(bool(KERNEL.lacks), reason=f"this kernel has {KERNEL}")

NEEDED = ("read a file", "start a thread", "connect to a Unix socket")
"""What a decoder does all the time."""
HARMLESS = (
    *("connect with TCP", "send with UDP", "make a file", "change a file", "change a mode", "set a time"),
    *("make a folder", "link to a file", "make a socket", "start a program", "truncate a file", "rename a file"),
    *("signal one of its threads", "use io_uring", "fill memory", "open many files"),
)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A TCP socket that nobody must come to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def attempts(folder: Path, jail: Jail, *, only: Sequence[str] = ()) -> dict[str, Any]:
    """What a prisoner says of its attempts: all of them, unless told which."""
    folder.mkdir()
    (folder / "there").write_text("content")
    addresses = make_addresses()
    context = zmq.Context()
    try:
        with (
            router(context, addresses.control) as control,
            listening() as server,
            socket.socket(socket.AF_UNIX) as door,
            (folder / "log").open("wb") as log,
        ):
            door.bind(str(addresses.folder / "door"))
            door.listen()
            content = {
                "folder": str(folder),
                "port": server.getsockname()[1],
                "listening": str(addresses.folder / "door"),
                "jail": jail.to_json(),
                "only": only,
            }
            child = start_child(DECODER, "prisoner", Setting("decoder-1", addresses, content), log=log)
            try:
                assert control.poll(30_000), (folder / "log").read_text()
                hello = decode_control(control.recv_multipart()[1:])
                assert isinstance(hello, Hello), hello
                if jail.lock != OFF:
                    with pytest.raises(TimeoutError):
                        server.accept()
                control.send_multipart([b"decoder-1", *encode(Stop())])
                child.process.wait(10)
            finally:
                child.process.kill()
                child.reap()
        return hello.about
    finally:
        context.destroy(linger=0)
        remove_sockets(addresses)


@needs_all
def test_a_prisoner_gets_nothing_but_what_decoding_needs(tmp_path: Path) -> None:
    said = attempts(tmp_path / "jailed", Jail(ON, data_bytes=1 << 30))
    assert said.pop("jail") == str(KERNEL)
    got = {name for name, outcome in said.items() if outcome.startswith("got")}
    connected = said.pop("connect to a Unix socket")
    assert connected == "got None"
    assert got == set(NEEDED), said
    assert said["fill memory"] == "MemoryError"
    assert sorted(path.name for path in (tmp_path / "jailed").iterdir()) == ["log", "there"]
    assert (tmp_path / "jailed" / "there").read_text() == "content"


def test_without_the_jail_the_same_attempts_succeed(tmp_path: Path) -> None:
    """Else the test above would say nothing. Those that end the prisoner, or endanger this process, are left out."""
    said = attempts(tmp_path / "free", Jail(OFF), only=HARMLESS)
    assert said.pop("jail") == OFF
    assert all(outcome.startswith("got") for outcome in said.values()), said


def _path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_of_both_machines_is_one_that_kernels_take(machine: str) -> None:
    """At most 4,096 instructions, no jump beyond the end, and the last one returns."""
    program = filter_program(machine, Jail(ON), pid=7)
    assert len(program) <= 4096
    for place, (_, true, false, _) in enumerate(program):
        assert place + 1 + max(true, false) < len(program) or (true, false) == (0, 0)
    assert program[-1] == (0x06, 0, 0, 0x7FFF0000)


def test_results_are_the_same_in_and_out_of_jail(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_short_videos(videos, 4, frames=40, size=(96, 64))
    modes = ["off", "auto" if KERNEL.lacks else "on"]
    for mode in modes:
        done = clipmux("run", videos, "--model", "demo", "--jail", mode, "--output", tmp_path / mode)
        assert done.returncode == 0, done.stderr
        assert summary(tmp_path / mode)["jail"] == ("off" if mode == "off" else str(KERNEL))
        assert f"decoders are jailed: {'off' if mode == 'off' else KERNEL}" in (tmp_path / mode / "run.log").read_text()
    assert len({json.dumps(results(tmp_path / mode)) for mode in modes}) == 1


@needs_all
def test_a_jail_that_must_be_and_cannot_is_refused(tmp_path: Path, null_model: Path) -> None:
    """With system calls of Landlock that answer as an older kernel does: a filter of this test's own."""
    if KERNEL.lacks:
        options = ["--jail", "on"]
        done = clipmux(
            "run", tmp_path, "--model", null_model, "--backend", "null", *options, "--output", tmp_path / "r"
        )
        assert done.returncode == 2
        assert "--jail auto, or off" in done.stderr
        return
    write_short_videos(tmp_path / "videos", 1, frames=16, size=(96, 64))
    arguments = [str(tmp_path / "videos"), "--model", str(null_model), "--backend", "null"]
    program = (
        "import sys; from without_landlock import pretend; pretend(); "
        "from clipmux.engine.cli import main; sys.argv[0] = 'clipmux'; main()"
    )
    for mode, status in (("on", 2), ("auto", 0)):
        command = [sys.executable, "-c", program, "run", *arguments, "--jail", mode, "--output", str(tmp_path / mode)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_path())
        assert done.returncode == status, done.stderr
        assert ("give --jail auto, or off" in done.stderr) == (mode == "on")
    assert not (tmp_path / "on").exists()
    assert summary(tmp_path / "auto")["jail"] == "seccomp; no Landlock (Function not implemented)"


def test_nobody_dumps_core_or_gains_privileges() -> None:
    program = (
        "from clipmux.engine.jail import Jail, confine; import resource; confine(Jail()); "
        "print(resource.getrlimit(resource.RLIMIT_CORE), open('/proc/self/status').read())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("(0, 0)")
    assert "NoNewPrivs:\t1" in done.stdout


def test_a_process_that_computes_for_too_long_is_ended_by_the_kernel() -> None:
    program = "from clipmux.engine.jail import allow_cpu; allow_cpu(0)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert describe_exit(done.returncode) == "was killed by SIGXCPU"
