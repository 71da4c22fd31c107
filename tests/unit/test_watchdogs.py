"""Who has been silent for too long; the clock and the limits are passed in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from clipmux.engine.children import COLLECTOR, DECODER, INFERENCE, Child
from clipmux.engine.config import EngineConfig
from clipmux.engine.watchdogs import overdue

CONFIG = EngineConfig("demo", open_timeout_s=10, decode_timeout_s=20, device_timeout_s=30, write_timeout_s=40)


@pytest.fixture(scope="module")
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("role", "state", "limit", "option"),
    [
        (DECODER, {"assigned": None}, 10, "--open-timeout"),
        (DECODER, {"assigned": 7}, 10, "--open-timeout"),
        (DECODER, {"assigned": 7, "opened": True}, 20, "--decode-timeout"),
        (INFERENCE, {}, 30, "--device-timeout"),
        (COLLECTOR, {}, 40, "--write-timeout"),
    ],
)
def test_each_role_has_its_own_limit(
    sleeper: subprocess.Popen[bytes], role: str, state: dict[str, Any], limit: float, option: str
) -> None:
    child = Child(role, f"{role}-1", sleeper, -1, started=0.0, ready=True, last_progress=100.0, **state)
    assert overdue(child, CONFIG, 100.0 + limit) == ""
    why = overdue(child, CONFIG, 100.5 + limit)
    assert why.endswith(f" for {limit} s ({option})")


def test_a_call_of_the_device_counts_from_its_beginning(sleeper: subprocess.Popen[bytes]) -> None:
    child = Child(INFERENCE, "inference-1", sleeper, -1, started=0.0, ready=True, last_progress=100.0)
    child.counts = {"now": {"call_s": 29.0}}
    assert overdue(child, CONFIG, 100.9) == ""
    assert overdue(child, CONFIG, 101.1) == "had a call of the device that did not return for 30 s (--device-timeout)"
    child.counts = {"now": {"call_s": 0.0}}
    assert overdue(child, CONFIG, 101.1) == ""
