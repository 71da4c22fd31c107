"""Child processes as the supervisor sees them: started, watched by a sentinel, and reaped."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from .child import Setting

DECODER, INFERENCE, COLLECTOR = "decoder", "inference", "collector"
MODULES = {
    DECODER: "clipmux.workers.decoder",
    INFERENCE: "clipmux.engine.inference",
    COLLECTOR: "clipmux.workers.collector",
}
CAMERA, WATCHER, PAGE = "camera", "watcher", "page"
LIVE_MODULES = {
    INFERENCE: MODULES[INFERENCE],
    CAMERA: "clipmux.workers.camera",
    WATCHER: "clipmux.workers.watcher",
    PAGE: "clipmux.workers.page.process",
}
CLIP_ROLES = frozenset({DECODER, CAMERA, INFERENCE})
"""Those whom the clip memory concerns."""
BEGIN = (
    "import sys; sys.path[:] = sys.argv[4:]; from clipmux.engine.orphans import be_woken; be_woken(); "
    "from clipmux.engine.jail import begin; told = begin(); "
    "from clipmux.engine.child import main; main(sys.argv[1], told)"
)
"""What a child executes: its own beginning, with our import path, so that it finds what we found and nothing else.

It goes to jail before it imports anything that starts threads. The folder of the sockets is among its arguments: that
tells its siblings whose it is (engine/orphans.py)."""

REAP_S = 5.0
"""How long the end of a process may take once it has been killed or has closed its standard output."""


@dataclass
class Child:
    """One child process and what is known of it.

    One that a host elsewhere started (engine/hosting.py) has neither ``process`` nor ``sentinel``: -1 stands there.
    """

    role: str
    name: str
    process: subprocess.Popen[bytes] | None
    sentinel: int
    started: float
    status: int | None = None
    ready: bool = False
    stopping: bool = False
    left: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    assigned: int | None = None
    opened: bool = False
    handed: set[int] = field(default_factory=set)
    last_progress: float = 0.0
    overdue: str = ""
    last_words: str = ""
    blameless: bool = False
    """Whatever it was decoding had nothing to do with its end."""
    killed: float | None = None
    waiting: bool = False
    seat: int = -1
    """In which it sends clips; of an inference process, which of the devices it has."""
    expects: bool = True
    """Inference was told that more clips come, which a new one takes for granted."""

    @property
    def post(self) -> tuple[str, int]:
        """What it does and no other process does meanwhile; decoders are one like another."""
        return (self.role, self.seat if self.role == INFERENCE else -1)

    @property
    def pid(self) -> int:
        """0 for one elsewhere."""
        return 0 if self.process is None else self.process.pid

    def kill(self) -> None:
        """SIGKILL; after that it executes nothing of its own any more, even if the kernel cannot end it yet."""
        self.killed = self.killed or time.monotonic()
        if self.process is not None:
            self.process.kill()

    def tell(self, setting: Setting) -> None:
        """Say the settings, on its standard input, which stays open as the death pipe."""
        assert self.process is not None  # noqa: S101  (only those are told this way)
        assert self.process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which its sentinel will say
            self.process.stdin.write(json.dumps(setting.to_json()).encode() + b"\n")
            self.process.stdin.flush()

    def reap(self) -> int | None:
        """Wait for its end, which its standard output has announced or a kill has caused.

        After a kill it has so much time, whenever this is called: many that the kernel cannot end are all waited for at
        the same time.

        Returns:
            Its exit status; None if the kernel holds it in a call that does not return, of a disk or a device. That of
            one elsewhere is not known: 0.
        """
        if self.process is None:
            self.status = 0
            return 0
        if self.killed is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=REAP_S)
            if self.process.returncode is None:  # its standard output is closed, but it lives on
                self.kill()
        if self.killed is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=max(0.0, self.killed + REAP_S - time.monotonic()))
        status = self.status = self.process.returncode
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # it had died before it was told its settings
                    pipe.close()
        return status


def start_child(role: str, module: str, setting: Setting, *, log: BinaryIO, pass_fds: Sequence[int] = ()) -> Child:
    """Start a fresh interpreter in a role, and tell it its settings: see ``spawn_child``."""
    child = spawn_child(role, module, setting, log=log, pass_fds=pass_fds)
    child.tell(setting)
    return child


def spawn_child(role: str, module: str, setting: Setting, *, log: BinaryIO, pass_fds: Sequence[int] = ()) -> Child:
    """Start a fresh interpreter in a role; it waits to be told its settings.

    Should this process die before it is, the child removes the folder of the sockets, if that is there.

    Args:
        role: a key of ``MODULES`` or ``LIVE_MODULES``.
        module: what to run as it, usually the one there.
        setting: what it will be told.
        log: an open file that becomes its standard error.
        pass_fds: open descriptors that it inherits, under the same numbers.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, module, setting.name, str(setting.addresses.folder), *filter(None, sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        pass_fds=pass_fds,
        start_new_session=True,  # Ctrl-C is for the supervisor, which then stops its children in order
    )
    assert process.stdout is not None  # noqa: S101  (asked for above)
    return Child(role, setting.name, process, process.stdout.fileno(), time.monotonic())


def describe_exit(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "was killed and does not end: a disk or a device does not answer it"
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
