"""The enumerations of the API: the members that are public [V], and no others."""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """Why a ``Status`` is not OK; ``OUT_OF_RANGE`` is seen in Python, the others in C++."""

    OK = 0
    OUT_OF_RANGE = 1
    UNAVAILABLE = 2
    INTERNAL = 3


class DataType(Enum):
    """Element types of tensors."""

    FLOAT16 = 1
    FLOAT32 = 2
    FLOAT64 = 3
    INT8 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    UINT8 = 8
    UINT16 = 9
    UINT32 = 10
    BOOL = 11
    QINT8 = 12
    QINT16 = 13


class ModelKind(Enum):
    """What a ``Parser`` reads."""

    kPytorch = 1  # noqa: N815  (the API's spelling, here and below)
    kOnnx = 2  # noqa: N815
    kCaffe = 3  # noqa: N815
    kTensorflow = 4  # noqa: N815


class QuantizationAlgorithm(Enum):
    """How a ``Calibrator`` makes a range of the values it saw."""

    LINEAR_ALGORITHM = 1
    EQNM_ALGORITHM = 2


class HostTracerLevel(Enum):
    """How much a ``Profiler`` notes of the host; ``kCritical`` and its neighbours [V, in C++]."""

    kOff = 0  # noqa: N815
    kCritical = 1  # noqa: N815
    kInfo = 2  # noqa: N815
    kVerbose = 3  # noqa: N815


class DeviceTracerLevel(Enum):
    """Whether a ``Profiler`` notes what the device does."""

    kOff = 0  # noqa: N815
    kOn = 1  # noqa: N815
