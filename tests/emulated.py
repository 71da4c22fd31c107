"""The MagicMind emulator, importable for as long as a test needs it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

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
