"""An older Python, as vendors' images have it, with numpy, pyzmq and msgpack alone: it makes one, and finds it.

    python tests/old_python.py FOLDER

makes a virtual environment of the oldest CPython from 3.8 to 3.9 that this machine has, on PATH or of pyenv.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NEEDED = ("numpy", "pyzmq", "msgpack")
OLD = "import sys; assert (3, 8) <= sys.version_info < (3, 10) and sys.implementation.name == 'cpython'"
READY = f"{OLD}; import numpy, zmq, msgpack"


def executes(python: object, program: str) -> bool:
    """Also false for a shim that leads nowhere."""
    return subprocess.run([str(python), "-c", program], capture_output=True, check=False).returncode == 0


def candidates() -> Iterator[Path]:
    for version in ("3.8", "3.9"):
        if (found := shutil.which(f"python{version}")) is not None:
            yield Path(found)
        yield from sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))


@functools.cache
def find() -> str | None:
    """What ``CLIPMUX_OLD_PYTHON`` names, or what ``make`` has made beside this Python's own environment."""
    python = os.environ.get("CLIPMUX_OLD_PYTHON") or f"{sys.prefix}/old/bin/python"
    return python if Path(python).exists() and executes(python, READY) else None


def old_python() -> str:
    """Its path; the test is skipped where there is none, since no package of Debian's would bring one."""
    if (python := find()) is None:
        pytest.skip(f"no CPython 3.8 or 3.9 with {', '.join(NEEDED)} (CLIPMUX_OLD_PYTHON names one)")
    return python


def make(folder: str) -> None:
    """Make it, if this machine has such a Python; else say so."""
    python = next((python for python in candidates() if executes(python, OLD)), None)
    if python is None:
        print("no CPython 3.8 or 3.9 is here: tests that need one will be skipped")
        return
    subprocess.run([python, "-m", "venv", folder], check=True)
    subprocess.run(
        [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *NEEDED], check=True
    )


if __name__ == "__main__":
    make(*sys.argv[1:])
