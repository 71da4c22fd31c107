"""``clipmux live`` while it runs: for tests of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from command import CLIPMUX


def listed(path: Path, streams: dict[str, tuple[object, str]]) -> Path:
    """A streams file: name to url and further lines."""
    path.write_text("".join(f'[[stream]]\nname = "{n}"\nurl = "{u}"\n{more}\n' for n, (u, more) in streams.items()))
    return path


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@contextlib.contextmanager
def running(*args: object) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The command while it watches, and the file with what it says of itself."""
    said = Path(os.environ["TMPDIR"]).parent / "said"
    with said.open("w") as file:
        process = subprocess.Popen(
            [CLIPMUX, "live", *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, text=True
        )
    try:
        yield process, said
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something to come true."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return value


def children(process: subprocess.Popen[str], role: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(part.startswith(f"{role}-") for part in child.cmdline()):
                found.append(child)
    return found


def figures_of(log: Path, role: str) -> list[dict[str, Any]]:
    """What the processes of a role said at their end."""
    told = [json.loads(line.split("figures: ")[1]) for line in log.read_text().splitlines() if "figures: " in line]
    return [each for each in told if each["role"] == role]
