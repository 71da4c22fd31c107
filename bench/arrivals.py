"""When queries come, and the largest rate of them that a condition allows. Pure: seeded, no clock."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def poisson_arrivals(rate: float, seconds: float, *, seed: int) -> npt.NDArray[np.float64]:
    """Seconds from the start at which queries come, rising: gaps are exponential with a mean of ``1 / rate``.

    As in LoadGen's Server scenario, queries do not wait for each other. There are ``rate · seconds`` of them (at least
    one), so that two runs at one rate answer the same number.
    """
    count = max(1, round(rate * seconds))
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    arrivals: npt.NDArray[np.float64] = np.cumsum(gaps)
    return arrivals


def largest_rate(holds: Callable[[float], bool], most: float, *, within: float = 0.05) -> float:
    """The largest rate up to ``most`` at which ``holds``, by bisection to a share of ``most``; 0 if at none.

    ``holds`` is taken to be true below some rate and false above it, and is asked once per rate.

    >>> largest_rate(lambda rate: rate <= 30, 100, within=0.05)
    28.125
    """
    if holds(most):
        return most
    low, high = 0.0, most
    while high - low > within * most:
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
