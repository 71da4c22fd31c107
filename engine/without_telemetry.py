"""OpenVINO, without what it would tell its makers.

Importing openvino starts openvino_telemetry, which forks a process that sends a usage event over the network. A run
must make no connection that nobody asked for, and a fork of a process with threads can hang for ever (it did, and held
a run's files open). OpenVINO has a stand-in for machines without that package; this makes it use it. Import ``ov`` from
here, nowhere else.
"""

from __future__ import annotations

import sys

if "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes `import openvino_telemetry` fail

import openvino as ov

__all__ = ["ov"]
