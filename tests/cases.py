"""A backend at a precision on a device, and the model folders compiled for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from clipmux.build.calibration import CalibrationSet
from clipmux.build.compile import compile_model
from clipmux.engine.model import ModelFolder
from clipmux.engine.without_telemetry import ov

GPUS = ["cuda:0"] if torch.cuda.is_available() else []
"""What tests take besides other devices, where there is one."""


@dataclass(frozen=True)
class Case:
    """A backend at a precision on a device."""

    backend: str
    precision: str
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.backend}-{self.precision}-{self.device}"


Compile = Callable[[Case], ModelFolder]


def compiling(source: ModelFolder, calibration: CalibrationSet | None, folder: Path) -> Compile:
    """What gives the model folder of a case, compiled when first asked for."""
    made: dict[tuple[str, str], ModelFolder] = {}

    def compiled(case: Case) -> ModelFolder:
        key = (case.backend, case.precision)
        if key not in made:
            made[key] = compile_model(
                source.path,
                folder / "-".join(key),
                target=case.backend,
                precision=case.precision,
                calibration=calibration,
            )
        return made[key]

    return compiled


def openvino_has(precision: str) -> bool:
    """Whether OpenVINO computes in a half precision on this CPU."""
    named = {"bfloat16": "BF16", "float16": "FP16"}[precision]
    return named in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
