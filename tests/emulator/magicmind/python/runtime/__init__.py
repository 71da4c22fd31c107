"""``magicmind.python.runtime``, which public programs import as ``mm`` [V]."""

import importlib.util

from ..cc._pywrap_runtime import Dims, ITensor, Status, enums
from ..cc._pywrap_runtime.enums import (
    Code,
    DataType,
    DeviceTracerLevel,
    HostTracerLevel,
    ModelKind,
    QuantizationAlgorithm,
)
from .device import Device, System
from .engine import Context, Engine
from .model import Model
from .profiler import Profiler, ProfilerOptions
from .queue import Queue
from .tensor import Tensor

__all__ = [
    "Code",
    "Context",
    "DataType",
    "Device",
    "DeviceTracerLevel",
    "Dims",
    "Engine",
    "HostTracerLevel",
    "ITensor",
    "Model",
    "ModelKind",
    "Profiler",
    "ProfilerOptions",
    "QuantizationAlgorithm",
    "Queue",
    "Status",
    "System",
    "Tensor",
    "enums",
]

if importlib.util.find_spec("torch"):  # else this is as in a runtime image, without the builder
    from .builder import Builder
    from .builder_config import BuilderConfig
    from .calibrator import CalibDataInterface, Calibrator, RemoteConfig
    from .network import Network

    __all__ += ["Builder", "BuilderConfig", "CalibDataInterface", "Calibrator", "Network", "RemoteConfig"]
