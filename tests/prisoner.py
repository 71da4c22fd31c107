"""A decoder that has been taken over: run as the role, it tries to get out, and tells the supervisor how that went."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from clipmux.engine.child import Setting
from clipmux.engine.control import Link, expect
from clipmux.engine.messages import Goodbye, Hello, Stop
from clipmux.engine.sockets import Context


def run(setting: Setting, context: Context, link: Link) -> None:
    """Try everything, and tell for each attempt what came of it: the error's name, or what was got."""
    folder, port = Path(setting.content["folder"]), setting.content["port"]
    tries: dict[str, Callable[[], Any]] = {
        "open a URL": lambda: av.open(f"http://127.0.0.1:{port}/a.mp4"),
        "connect with TCP": lambda: socket.create_connection(("127.0.0.1", port), timeout=5),
        "send with UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)),
        "open a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "make a file": lambda: (folder / "made").write_bytes(b"x"),
        "change a file": lambda: (folder / "there").open("ab"),
        "truncate a file": lambda: os.truncate(folder / "there", 0),
        "remove a file": (folder / "there").unlink,
        "rename a file": lambda: (folder / "there").rename(folder / "moved"),
        "make a folder": (folder / "inner").mkdir,
        "link to a file": lambda: os.link(folder / "there", folder / "linked"),
        "change a mode": lambda: (folder / "there").chmod(0o777),
        "set a time": lambda: os.utime(folder / "there", (0, 0)),
        "set an attribute": lambda: os.setxattr(folder / "there", "user.x", b"x"),
        "make a socket": lambda: socket.socket(socket.AF_UNIX).bind(str(folder / "socket")),
        "become a program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
        "start a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "fork": os.fork,
        "signal its supervisor": lambda: os.kill(os.getppid(), signal.SIGTERM),
        "signal one of its threads": lambda: _call("tgkill", os.getppid(), os.getppid(), 0),
        "trace its supervisor": lambda: _call("ptrace", 16, os.getppid(), 0, 0),
        "read its supervisor's memory": lambda: Path(f"/proc/{os.getppid()}/mem").read_bytes(),
        "use io_uring": lambda: _call("io_uring_setup", 1, ctypes.create_string_buffer(256)),
        "enter a namespace": lambda: _call("unshare", 0x10000000),
        "mount": lambda: _call("mount", b"none", str(folder).encode(), b"tmpfs", 0, None),
        "fill memory": lambda: np.ones(1 << 30, np.uint8),
        "open many files": lambda: [open(os.devnull) for _ in range(1000)],  # noqa: PTH123, SIM115
        # What a decoder needs goes on working.
        "read a file": (folder / "there").read_text,
        "start a thread": _start_a_thread,
        "connect to a Unix socket": lambda: socket.socket(socket.AF_UNIX).connect(setting.content["listening"]),
    }
    only = setting.content.get("only") or tries
    about = {name: _outcome(tries[name]) for name in only}
    link.send(Hello({**about, "jail": setting.content["jail"]}))
    expect(link.receive(None), Stop)
    link.send(Goodbye())


def _outcome(attempt: Callable[[], Any]) -> str:
    try:
        return f"got {attempt()!r}"[:100]
    except Exception as error:
        return type(error).__name__


def _start_a_thread() -> bool:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    return True


NUMBERS = {
    "x86_64": {"tgkill": 234, "ptrace": 101, "io_uring_setup": 425, "unshare": 272, "mount": 165},
    "aarch64": {"tgkill": 131, "ptrace": 117, "io_uring_setup": 425, "unshare": 97, "mount": 40},
}


def _call(name: str, *arguments: Any) -> int:
    """A system call that Python has no function for."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(NUMBERS[os.uname().machine][name], *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
