"""The emulated machine, as the environment describes it; asked anew each time, so that tests may change it.

Architecture names are public [V]; ``mtp_322`` is another spelling of ``tp_322``.
"""

from __future__ import annotations

import os
import sys
import threading

ARCHS = ("mtp_220", "mtp_270", "mtp_290", "mtp_372", "tp_322", "mtp_322", "mtp_592")

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_current = threading.local()


def device_count() -> int:
    present = int(os.environ.get("MAGICMIND_EMULATOR_DEVICES", "1"))
    visible = os.environ.get("MLU_VISIBLE_DEVICES")
    if visible is None:
        return present
    return len({name for name in visible.split(",") if name.strip().isdigit() and int(name) < present})


def arch() -> str:
    return same_arch(os.environ.get("MAGICMIND_EMULATOR_ARCH", "mtp_372"))


def clusters() -> int:
    return int(os.environ.get("MAGICMIND_EMULATOR_CLUSTERS", "8"))


def same_arch(name: str) -> str:
    """One name for each architecture."""
    return "tp_322" if name == "mtp_322" else name


def remote_answers(host: str, port: str) -> bool:
    """Whether a remote device is there; nothing is sent."""
    return host in LOOPBACK or f"{host}:{port}" in os.environ.get("MAGICMIND_EMULATOR_REMOTES", "").split(",")


def current_device() -> int | None:
    """The device that this thread made active, if any: activity belongs to a thread [I]."""
    return getattr(_current, "device", None)


def make_current(device: int) -> None:
    _current.device = device


def complain(call: str, reason: str) -> None:
    """Say on stderr why a call returned None: the API has no other place for it."""
    print(f"[magicmind emulator] {call}: {reason}", file=sys.stderr)
