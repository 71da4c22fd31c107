"""The CPU, or some of its cores, as a device."""

from __future__ import annotations

import os
import re

from clipmux.engine.errors import UsageError

CPU = r"cpu(?::(\d{1,5})(?:-(\d{1,5}))?)?"
"""``cpu``: all the cores there are; ``cpu:3``: that one; ``cpu:0-7``: these."""


def on_cpu(device: str) -> bool:
    """The device is the CPU, or some of its cores."""
    return re.fullmatch(CPU, device) is not None


def cores_of(device: str) -> set[int] | None:
    """The cores that a device is; None where it is none in particular."""
    match = re.fullmatch(CPU, device)
    if match is None or match[1] is None:
        return None
    return set(range(int(match[1]), int(match[2] or match[1]) + 1))


def keep_to_cores(device: str) -> None:
    """Let this process run on the cores that ``device`` is, and on no others.

    Raises:
        UsageError: they are not all there for this process.
    """
    if (wanted := cores_of(device)) is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError(f"--device is '{device}', but this system does not bind processes to cores: say cpu")
    usable = os.sched_getaffinity(0)
    if not wanted or wanted - usable:
        there = ", ".join(map(str, sorted(usable)))
        raise UsageError(f"'{device}' is not among the cores that may be used here: these are {there}")
    os.sched_setaffinity(0, wanted)
