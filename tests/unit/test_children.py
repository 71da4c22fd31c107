"""A child that dies at a bad moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
