"""``ITensor``, an input or output of a network before it is built [V]."""

from __future__ import annotations

from .arguments import need
from .dims import Dims
from .enums import DataType
from .status import Status, failure


class ITensor:
    """A named tensor whose shape and type may be set.

    ``rank`` is None where the parsed file does not say it (TorchScript); then any shape may be set. The constructor is
    the emulator's own: programs get tensors from a ``Network``.
    """

    def __init__(self, name: str, dims: list[int], data_type: DataType, rank: int | None) -> None:
        self._name = name
        self._dims = dims
        self._data_type = data_type
        self._rank = rank

    def set_dimension(self, dims: Dims) -> Status:
        need("set_dimension", dims, Dims)
        wanted = dims.GetDims()
        if self._rank is not None and len(wanted) != self._rank:
            return failure(f"{dims} has {len(wanted)} axes, '{self._name}' has {self._rank}")
        if not wanted or any(length == 0 or length < -1 for length in wanted):
            return failure(f"{dims} is no shape for '{self._name}'")
        self._dims = wanted
        return Status.OK()

    def set_data_type(self, data_type: DataType) -> Status:
        need("set_data_type", data_type, DataType)
        self._data_type = data_type
        return Status.OK()

    def get_dimension(self) -> Dims:
        return Dims(self._dims)

    def get_data_type(self) -> DataType:
        return self._data_type

    def get_tensor_name(self) -> str:
        return self._name
