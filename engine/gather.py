"""Copying pictures into a clip, and clips into a batch: what is written is read much later, by somebody else.

A small C extension (``_gather.c``) writes past the processor's caches; where it was not built, numpy copies through
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from . import _gather  # type: ignore[attr-defined, unused-ignore]
except ImportError:
    _gather = None


def gather(out: npt.NDArray[np.uint8], parts: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Copy arrays one after another into ``out``.

    Args:
        out: C-contiguous; may be larger than all parts together, the rest stays as it is.
        parts: C-contiguous.

    Raises:
        ValueError: they do not fit, or an array is not contiguous.
    """
    GATHER(out, parts)


def gather_with_numpy(out: npt.NDArray[np.uint8], parts: Sequence[npt.NDArray[np.uint8]]) -> None:
    """What the extension does, a copy at a time."""
    if not all(array.flags.c_contiguous for array in (out, *parts)):
        raise ValueError("an array is not C-contiguous")
    total = sum(part.size for part in parts)
    if total > out.size:
        raise ValueError(f"{total} bytes do not fit into {out.size}")
    if parts:
        np.concatenate([part.reshape(-1) for part in parts], out=out.reshape(-1)[:total])


GATHER: Any = gather_with_numpy if _gather is None else _gather.gather
