"""``Dims``, a shape [V]: -1 is an axis whose length varies."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .arguments import integers, need


class Dims:
    """A shape, made of a list or a tuple."""

    def __init__(self, dims: Sequence[int] = ()) -> None:
        self._dims = integers("Dims", dims)

    def GetDims(self) -> list[int]:  # noqa: N802
        """A list of one's own: changing it does not change the ``Dims``."""
        return list(self._dims)

    def GetDimValue(self, index: int) -> int:  # noqa: N802
        need("GetDimValue", index, int)
        if not 0 <= index < len(self._dims):
            raise IndexError(f"GetDimValue(): no axis {index} in {self}")
        return self._dims[index]

    def GetElementCount(self) -> int:  # noqa: N802
        """Elements of a tensor of this shape, -1 if an axis varies."""
        return -1 if -1 in self._dims else prod(self._dims)

    def __str__(self) -> str:
        return str(self._dims)

    __repr__ = __str__
