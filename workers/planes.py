"""Planes of YUV to the scaled crop in RGB, in numpy: bit for bit what ``_planes.c`` computes, where that was not built.

The arithmetic, in whole numbers of 16 bits. A *share* is the upper half of a 32-bit product: value · weight / 65536,
rounded down. Colours count in 1/64 of an 8-bit step, from 320 such steps below black on, so that nothing is ever
negative.

1. chroma: what a sample adds to the luma of R, G and B, in 1/4 of a step. A pixel gets ¾ of its own sample's and ¼ of
   the neighbour's, first down, in 1/16, then across, in 1/64: samples lie midway between their pixels, whatever tags
   say, as libswscale has it, whose pictures are our yardstick;
2. colour: luma and that, clipped to 0…255;
3. rows: each of the crop's rows is the sum of its taps' shares, and what rounding down took from them on average;
4. columns: the same along the other axis, rounded to whole steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .taps import Taps

FRACTION_BITS = 6
CHROMA_SHIFT = 4
BASE = 320 << FRACTION_BITS
WHITE = 255 << FRACTION_BITS

Numbers = npt.NDArray[Any]
"""uint32, of which 16 bits are in use."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What ``plan`` was given."""

    bits: int
    across: int
    down: int
    halved: int
    chroma_height: int
    chroma_width: int
    rows: Taps
    columns: Taps
    colour: tuple[int, int, int, int, int, int]


def plan(
    bits: int,
    across: int,
    down: int,
    halved: int,
    chroma_height: int,
    chroma_width: int,
    rows: Taps,
    columns: Taps,
    colour: tuple[int, int, int, int, int, int],
) -> Plan:
    """Prepare for pictures of one kind.

    Args:
        bits: of a sample, 8 to 14; above 8 they come as 16-bit little-endian numbers.
        across: columns of pixels for one sample of chroma, 1 or 2.
        down: rows of pixels for one sample of chroma, 1 or 2.
        halved: 1 to let the mean of four pixels, those that share a sample of chroma, count as one, else 0. The other
            numbers are then those of the halved picture, in which each pixel has a sample of its own.
        chroma_height: rows of a chroma plane.
        chroma_width: columns of a chroma plane.
        rows: what makes the crop's rows.
        columns: what makes the crop's columns.
        colour: black in 1/64, then the factors of luma, of V in red, of U and of V in green (subtracted), and of U in
            blue, in 1/16384.
    """
    return Plan(bits, across, down, halved, chroma_height, chroma_width, rows, columns, colour)


def pixels(
    plan: Plan, out: npt.NDArray[np.uint8], y: Any, y_line: int, u: Any, u_line: int, v: Any, v_line: int
) -> None:
    """Fill ``out``, uint8 ``[height, width, 3]``, from three planes: buffers, and the bytes from line to line.

    Raises:
        ValueError: a plane is smaller than it has to be.
    """
    height = _reach(plan.rows)
    chroma_width = -(-_reach(plan.columns) // plan.across)
    luma = _samples(y, y_line, plan.bits, height << plan.halved, chroma_width * plan.across << plan.halved)
    if plan.halved:
        luma = luma.reshape(height, 2, chroma_width, 2).sum(axis=(1, 3), dtype=np.uint32) >> 2
    us, vs = (
        _samples(plane, line, plan.bits, plan.chroma_height, plan.chroma_width)
        for plane, line in ((u, u_line), (v, v_line))
    )
    black, gain, *_ = plan.colour
    luma = _share(luma, gain)
    for channel, chroma in enumerate(_chroma(plan, us, vs, BASE - black)):
        colour = np.clip(luma + _spread(plan, chroma, height, chroma_width), BASE, BASE + WHITE)
        value = _scaled(_scaled(colour, plan.rows).T, plan.columns).T
        least = BASE - (1 << FRACTION_BITS - 1)
        out[..., channel] = np.minimum((np.maximum(value, least) - least) >> FRACTION_BITS, 255)


def _chroma(plan: Plan, us: Numbers, vs: Numbers, base: int) -> tuple[Numbers, Numbers, Numbers]:
    """What chroma adds to red, green and blue."""
    _, _, red_v, green_u, green_v, blue_u = plan.colour
    base += 1 << CHROMA_SHIFT - 1
    return (
        _share(vs, red_v) + (base - red_v // 2) >> CHROMA_SHIFT,
        base + green_u // 2 + green_v // 2 - _share(us, green_u) - _share(vs, green_v) >> CHROMA_SHIFT,
        _share(us, blue_u) + (base - blue_u // 2) >> CHROMA_SHIFT,
    )


def _spread(plan: Plan, chroma: Numbers, height: int, width: int) -> Numbers:
    """Chroma for every pixel, ``[height, width · across]``; ``width`` counts samples."""
    if plan.down == 1:
        chroma = _blend(chroma, chroma)
    else:
        rows = np.arange(height)
        above = rows // 2
        beyond = np.clip(above + np.where(rows % 2, 1, -1), 0, plan.chroma_height - 1)
        chroma = _blend(chroma[above], chroma[beyond])
    near = chroma[:height, :width]
    if plan.across == 1:
        return _blend(near, near)
    columns = np.arange(width)
    even = _blend(near, chroma[:height, np.maximum(columns - 1, 0)])
    odd = _blend(near, chroma[:height, np.minimum(columns + 1, plan.chroma_width - 1)])
    return np.stack((even, odd), axis=-1).reshape(height, 2 * width)


def _samples(plane: Any, line: int, bits: int, rows: int, columns: int) -> Numbers:
    """A plane's first rows and columns, ``[rows, columns]``, in 16 bits."""
    values: npt.NDArray[np.uint8] = np.frombuffer(plane, np.uint8)
    width = columns * (1 if bits == 8 else 2)
    if line < width or (rows - 1) * line + width > len(values):
        raise ValueError(f"a plane of {len(values)} bytes, {line} a line, is too small for {rows} lines of {width}")
    lines = np.lib.stride_tricks.as_strided(values, (rows, width), (line, 1), writeable=False)
    samples = lines if bits == 8 else np.ascontiguousarray(lines).view("<u2")
    return samples.astype(np.uint32) << 16 - bits


def _scaled(values: Numbers, taps: Taps) -> Numbers:
    """Outputs for inputs, along the first axis."""
    sums = np.empty((len(taps.starts), values.shape[1]), np.uint32)
    sums[:] = taps.biases[:, None]
    for tap, weights in enumerate(taps.weights.T):
        sums += _share(values[taps.starts + tap], weights[:, None])
    return sums


def _share(values: Numbers, weights: npt.NDArray[np.uint16] | int) -> Numbers:
    return values * np.asarray(weights, np.uint32) >> 16


def _blend(near: Numbers, far: Numbers) -> Numbers:
    return 3 * near + far


def _reach(taps: Taps) -> int:
    """How many inputs there must be."""
    return int(taps.starts.max()) + taps.weights.shape[1]
