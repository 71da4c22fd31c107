"""Commands that run beside each other, and what they wait for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

Start = Callable[..., "subprocess.Popen[str]"]
"""Start a ``clipmux`` command that is killed at the end of the test."""


def until(holds: Callable[[], bool], what: str, timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


def finished(run: Path, count: int) -> Callable[[], bool]:
    file = run / "results.jsonl"
    return lambda: file.exists() and len(file.read_text().splitlines()) >= count


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
