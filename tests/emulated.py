"""The MagicMind emulator, importable for as long as a test or a command needs it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from command import clipmux

EMULATOR = Path(__file__).resolve().parent / "emulator"


@contextlib.contextmanager
def magicmind() -> Iterator[None]:
    """``magicmind`` can be imported in this process; afterwards nothing of it is left."""
    sys.path.insert(0, str(EMULATOR))
    try:
        yield
    finally:
        sys.path[:] = [entry for entry in sys.path if entry != str(EMULATOR)]
        for name in [name for name in sys.modules if name.partition(".")[0] == "magicmind"]:
            del sys.modules[name]


def on_mlu(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    """The command on a machine with one MLU; its processes find MagicMind where the command does."""
    path = os.pathsep.join(filter(None, (str(EMULATOR), os.environ.get("PYTHONPATH", ""))))
    return clipmux(*args, **{"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **env})
