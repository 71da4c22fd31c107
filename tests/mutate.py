"""Foreign bytes from good ones, the same for the same seed."""

from __future__ import annotations

from random import Random
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, -(2**63), 0.0, -1.5, 1e308, float("inf"), float("nan"),
    "", "x", "x" * 5000, "ü", "\0", "../../etc/passwd", [], {}, [[]], [None] * 100, {"": None},
)  # fmt: skip
"""Values that belong nowhere, or nearly nowhere."""


def bytes_of(good: bytes, other: bytes, random: Random) -> bytes:
    """``good`` with a few bytes changed, put in, left out, doubled, cut off, or joined with ``other``."""
    spoilt = bytearray(good)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(spoilt) + 1)
        length = random.choice((1, 1, 2, 4, 16, 256))
        kind = random.randrange(8)
        if kind == 0:
            spoilt[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 1 and at < len(spoilt):
            spoilt[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            spoilt[at:at] = random.randbytes(length)
        elif kind == 3:
            del spoilt[at : at + length]
        elif kind == 4:
            spoilt[at:at] = spoilt[at : at + length]
        elif kind == 5:
            del spoilt[at:]
        elif kind == 6:
            start = random.randrange(len(other) + 1)
            spoilt[at:] = other[start : start + 4096]
        else:
            spoilt[at : at + length] = random.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * length
    return bytes(spoilt)


def tree_of(good: Any, random: Random) -> Any:
    """``good`` (of dicts, lists and plain values) with a node changed for one that does not belong there."""
    if isinstance(good, dict) and good and random.random() < 0.75:
        key = random.choice(list(good))
        changed = dict(good)
        kind = random.randrange(6)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[f"{key}x"] = changed.pop(key)
        else:
            changed[key] = tree_of(good[key], random)
        return changed
    if isinstance(good, list) and good and random.random() < 0.75:
        at = random.randrange(len(good))
        kind = random.randrange(6)
        if kind == 0:
            return good[:at] + good[at + 1 :]
        if kind == 1:
            return good[: at + 1] + good[at:]
        return [*good[:at], tree_of(good[at], random), *good[at + 1 :]]
    return random.choice(NASTY)
