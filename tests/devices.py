"""Two devices of this machine: a core each."""

from __future__ import annotations

import os

import pytest

CORES = sorted(os.sched_getaffinity(0))[:2]
TWO = ",".join(f"cpu:{core}" for core in CORES)
two_devices = pytest.mark.skipif(len(CORES) < 2, reason="two cores are needed, to be two devices")
