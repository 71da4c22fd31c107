"""How children end when their supervisor has died: every one, whatever it is at.

Each reads the end of the supervisor from its death pipe, and goes. The first to do so sees to the others: it wakes
those that are stopped, kills those that are stuck in foreign code and read nothing, and removes the folder of the
sockets. Its siblings are those with that folder among their arguments, which the kernel of Linux tells; even one that
was stopped before it executed a line of Python.

This is the first of our modules that a child imports: it may import nothing that starts threads (engine/jail.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""
ORPHANED = 70
"""Exit status of a child whose supervisor died."""
WAKE_S = 1.0
"""How long the others have to end by themselves."""


def be_woken() -> None:
    """Have the kernel continue this process, should it be stopped, when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def end_the_others(folder: Path) -> None:
    """End all children of the dead supervisor but this one, and leave nothing behind.

    Only the first one does so that may: a jailed one can neither send signals nor remove anything.

    Args:
        folder: of the sockets.
    """
    ended = folder.with_name(f"{folder.name}-ended")
    try:
        os.kill(os.getpid(), 0)
        folder.rename(ended)
    except OSError:
        return
    deadline = time.monotonic() + WAKE_S
    while (others := siblings(folder)) and time.monotonic() < deadline:
        _send(others, signal.SIGCONT)
        time.sleep(0.05)
    _send(others, signal.SIGKILL)
    shutil.rmtree(ended, ignore_errors=True)


def siblings(folder: Path) -> list[int]:
    """Other processes that have this folder among their arguments."""
    argument = os.fsencode(folder)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if argument in (process / "cmdline").read_bytes().split(b"\0") and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def _send(processes: list[int], what: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process, what)
