"""Two machines in one: network namespaces of a test's own, joined by a cable that nothing else is on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE, THERE = "10.231.77.1", "10.231.77.2"
"""Addresses of the two ends."""


@contextmanager
def joined() -> Iterator[tuple[str, str]]:
    """The names of two namespaces, at ``HERE`` and ``THERE``; skips where they cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and 'ip' (iproute2)")
    names = (f"clipmux-{os.getpid()}-a", f"clipmux-{os.getpid()}-b")
    try:
        for name in names:
            if (made := _ip("netns", "add", name)).returncode:
                pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
        if (
            made := _ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "cable", "netns", names[1])
        ).returncode:
            pytest.skip(f"no virtual cable can be made here: {made.stderr.strip()}")
        for name in names:  # which would send packets by itself
            _ip("netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
        for name, address in zip(names, (HERE, THERE), strict=True):
            for change in (("addr", "add", f"{address}/30", "dev", "cable"), ("link", "set", "cable", "up")):
                assert _ip("-n", name, *change).returncode == 0
            assert _ip("-n", name, "link", "set", "lo", "up").returncode == 0
        yield names
    finally:
        for name in names:
            _ip("netns", "del", name)


def inside(name: str, *command: object) -> subprocess.Popen[str]:
    """Start a program of these tests in a namespace."""
    tests = Path(__file__).parent
    return subprocess.Popen(
        ["ip", "netns", "exec", name, sys.executable, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tests), "COLUMNS": "200"},
    )


def sent_packets(name: str) -> int:
    """How many packets have left a namespace so far, on its loopback address too."""
    listed = _ip_output("netns", "exec", name, "cat", "/proc/net/dev")
    return sum(int(line.partition(":")[2].split()[9]) for line in listed.splitlines() if ":" in line)


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


def _ip_output(*arguments: str) -> str:
    done = _ip(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
