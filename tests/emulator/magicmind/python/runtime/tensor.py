"""The runtime's tensors [V]: ``from_numpy`` sets the shape of a call and casts [I], ``asnumpy`` gives a host array.

Outputs hold NaN (whole numbers: the largest) until ``sync``, so that a program that forgets it notices. Writing to an
input that a queue may still read makes ``sync`` fail: on a device it would be a race [–].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cc._pywrap_runtime import Status
from ..cc._pywrap_runtime.arguments import integers, need
from ..cc._pywrap_runtime.status import failure
from . import faults, machine
from .program import Array, Port, Shape

if TYPE_CHECKING:
    from .device import Device


class Tensor:
    """Made by a ``Context`` only."""

    _port: Port
    _shape: Shape
    _array: Array | None
    _readers: int
    _overwritten: bool

    def __init__(self) -> None:
        raise TypeError("Tensor: no constructor defined, use Context.create_inputs()")

    @classmethod
    def _of(cls, port: Port) -> Tensor:
        tensor = cls.__new__(cls)
        tensor._port, tensor._shape, tensor._array = port, port.dims, None
        tensor._readers, tensor._overwritten = 0, False
        return tensor

    @property
    def shape(self) -> Shape:
        """-1 for axes that vary, until the tensor has a shape of its own."""
        return self._shape

    def from_numpy(self, array: Array) -> Status:
        """Copy an array, cast to the tensor's type; any shape of the right rank, which counts when it is enqueued."""
        need("from_numpy", array, np.ndarray)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"from_numpy(): incompatible function arguments: an array of {array.dtype}")
        if faults.strikes("from_numpy"):
            return failure("a fault was asked for")
        if array.ndim != len(self._port.dims):
            return failure(f"'{self._port.name}' has {len(self._port.dims)} axes, {list(array.shape)} has {array.ndim}")
        with np.errstate(all="ignore"):
            self._array = np.array(array, dtype=self._port.dtype, order="C")
        self._shape = array.shape
        self._overwritten = self._readers > 0
        return Status.OK()

    def resize(self, shape: Sequence[int]) -> Status:
        """Give the tensor a shape; its content is lost."""
        wanted = tuple(integers("resize", shape))
        if len(wanted) != len(self._port.dims) or any(length < 1 for length in wanted):
            return failure(f"{list(wanted)} is no shape for '{self._port.name}'")
        self._shape, self._array = wanted, None
        self._overwritten = self._readers > 0
        return Status.OK()

    def to(self, device: Device) -> Status:
        from .device import Device

        need("to", device, Device)
        if faults.strikes("to"):
            return failure("a fault was asked for")
        if machine.current_device() != device.id:
            return failure(f"device {device.id} is not active in this thread")
        return Status.OK()

    def asnumpy(self) -> Array:
        """A contiguous array of one's own."""
        if self._array is None:
            return _poison(self._shape, self._port.dtype)
        return self._array.copy()

    def _poison(self, shape: Shape) -> None:
        """Forget the content of an output that is about to be computed."""
        self._shape, self._array = shape, _poison(shape, self._port.dtype)

    def _set(self, array: Array) -> None:
        self._shape, self._array = array.shape, array

    def _lend(self) -> Array:
        """The content for a call that was enqueued, until ``_return``."""
        assert self._array is not None
        self._readers += 1
        return self._array

    def _return(self) -> str | None:
        """The end of a call; says whether the tensor was written to meanwhile."""
        self._readers -= 1
        spoilt, self._overwritten = self._overwritten, self._overwritten and self._readers > 0
        return f"'{self._port.name}' was written to between enqueue and sync" if spoilt else None


def _poison(shape: Shape, dtype: np.dtype[Any]) -> Array:
    wrong: Any = np.nan if dtype.kind == "f" else (True if dtype.kind == "b" else np.iinfo(dtype).max)
    return np.full([max(length, 0) for length in shape], wrong, dtype)
