"""A child that dies at a bad moment."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipmux.engine.child import Setting
from clipmux.engine.children import INFERENCE, Child
from clipmux.engine.sockets import name_addresses


def test_one_that_died_before_it_was_told_its_settings_is_reaped_like_any_other(tmp_path: Path) -> None:
    """What it was told is still in the buffer of its pipe, which is written once more as that closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", "raise SystemExit(7)"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.wait(timeout=30)
    assert process.stdout is not None
    child = Child(INFERENCE, "inference-1", process, process.stdout.fileno(), 0.0)
    child.tell(Setting("inference-1", name_addresses("", tmp_path, devices=1), {}))
    assert child.reap() == 7


def test_one_that_the_kernel_cannot_end_is_waited_for_from_its_kill_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = []

    class Stuck(subprocess.Popen[bytes]):
        def kill(self) -> None:
            """The kernel holds it."""

        def wait(self, timeout: float | None = None) -> int:
            waits.append(timeout)
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)

    process = Stuck([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        child = Child(INFERENCE, "inference-1", process, process.stdout.fileno(), 0.0)
        child.kill()
        monkeypatch.setattr(time, "monotonic", lambda: (child.killed or 0.0) + 3.0)
        assert child.reap() is None
        monkeypatch.setattr(time, "monotonic", lambda: (child.killed or 0.0) + 60.0)
        assert child.reap() is None
        assert waits == [2.0, 0.0]
    finally:
        subprocess.Popen.kill(process)
        subprocess.Popen.wait(process)
