"""Data types and numpy's names for them [V].

Types that numpy has no name for (QINT8, QINT16) are their storage types here [–].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cc._pywrap_runtime.enums import DataType

_TO_NUMPY: dict[DataType, type[np.generic]] = {
    DataType.FLOAT16: np.float16,
    DataType.FLOAT32: np.float32,
    DataType.FLOAT64: np.float64,
    DataType.INT8: np.int8,
    DataType.INT16: np.int16,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.UINT8: np.uint8,
    DataType.UINT16: np.uint16,
    DataType.UINT32: np.uint32,
    DataType.BOOL: np.bool_,
    DataType.QINT8: np.int8,
    DataType.QINT16: np.int16,
}
_FROM_NUMPY = {np.dtype(kind): name for name, kind in reversed(_TO_NUMPY.items())}


def get_datatype_by_numpy(dtype: Any) -> DataType:
    """The ``DataType`` of a numpy dtype, or of what ``numpy.dtype`` makes one of.

    Raises:
        ValueError: MagicMind has no such type.
    """
    try:
        return _FROM_NUMPY[np.dtype(dtype)]
    except KeyError:
        raise ValueError(f"no DataType for numpy's {dtype!r}") from None


def get_numpy_dtype_by_datatype(data_type: DataType) -> type[np.generic]:
    """The numpy type of a ``DataType``.

    Raises:
        TypeError: not a ``DataType``.
    """
    if not isinstance(data_type, DataType):
        raise TypeError(f"get_numpy_dtype_by_datatype() takes a DataType, not {data_type!r}")
    return _TO_NUMPY[data_type]
