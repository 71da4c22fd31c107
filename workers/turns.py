"""When the clips of each stream end, so that not all streams' clips wait for the device at the same time. Pure.

All streams have the same stride. Of those whose clips end together most would wait, stride after stride, and the device
would have nothing to do in between. So each has a turn of its own within the stride.
"""

from __future__ import annotations

import math

GOLDEN = (math.sqrt(5) - 1) / 2


def turn_of(seat: int) -> float:
    """A stream's turn, from 0 to below 1 of the stride.

    Multiples of the golden ratio are spread evenly over the circle however many there are: no two neighbours are more
    than 2.7 times as far apart as any others (the three-distance theorem).
    """
    return seat * GOLDEN % 1


def until_turn(now: float, turn: float, stride_s: float) -> float:
    """Seconds from ``now`` until it is the stream's turn, from 0 to below ``stride_s``.

    >>> round(until_turn(10.1, 0.5, 0.4), 6)
    0.1
    """
    return (turn * stride_s - now) % stride_s
