"""Refusing arguments of wrong types as compiled bindings do: with a ``TypeError``, never with a ``Status`` [I]."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any


def need(call: str, value: Any, *kinds: type) -> None:
    """Check one argument of ``call``; a bool is no int, a ``pathlib.Path`` no str.

    Raises:
        TypeError: ``value`` is of none of ``kinds``.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{call}(): incompatible function arguments: {value!r} where {wanted} is taken")


def integers(call: str, values: Any) -> list[int]:
    """A sequence of whole numbers as plain ints (numpy's are taken, floats are not).

    Raises:
        TypeError: not a sequence of them.
    """
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise TypeError(f"{call}(): incompatible function arguments: {values!r} where a list of int is taken")
    try:
        return [index(value) for value in values]
    except TypeError:
        raise TypeError(f"{call}(): incompatible function arguments: {values!r} where a list of int is taken") from None
