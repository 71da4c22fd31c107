"""``magicmind.python.runtime``, which public programs import as ``mm`` [V]."""

from ..cc._pywrap_runtime import Dims, ITensor, Status, enums
from ..cc._pywrap_runtime.enums import (
    Code,
    DataType,
    DeviceTracerLevel,
    HostTracerLevel,
    ModelKind,
    QuantizationAlgorithm,
)
from .builder import Builder
from .builder_config import BuilderConfig
from .calibrator import CalibDataInterface, Calibrator, RemoteConfig
from .device import Device, System
from .engine import Context, Engine
from .model import Model
from .network import Network
from .profiler import Profiler, ProfilerOptions
from .queue import Queue
from .tensor import Tensor

__all__ = [
    "Builder",
    "BuilderConfig",
    "CalibDataInterface",
    "Calibrator",
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
    "Network",
    "Profiler",
    "ProfilerOptions",
    "QuantizationAlgorithm",
    "Queue",
    "RemoteConfig",
    "Status",
    "System",
    "Tensor",
    "enums",
]
