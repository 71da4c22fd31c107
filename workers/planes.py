"""Planes of YUV to the scaled crop in RGB, in numpy: bit for bit what ``_planes*.c`` compute, where that was not built.

The arithmetic, in whole numbers of 16 bits:

1. chroma: what a sample adds to the luma of R, G and B, in 1/8 of a step of luma (of 255). A pixel gets ¾ of its own
   sample's and ¼ of the neighbour's, first across, in 1/32, then down, in 1/64: samples lie midway between their
   pixels, whatever tags say, as libswscale has it, whose pictures are our yardstick;
2. colour: luma and that, in whole steps from black, clipped to white. Lines of chroma are up to 1/4 of a step too high
   and too low in turn, so that plain areas are not rounded all the same way;
3. rows: each of the crop's rows is the weighted sum of its taps, and stretched from black … white to 0 … 255;
4. columns: the same along the other axis, without stretching. Each is rounded to a whole step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .taps import Taps

FRACTION_BITS = 6
LUMA_BITS = 8 + FRACTION_BITS
CHROMA_SHIFT = 3
DITHER = 1 << 4
WEIGHT_BITS = 7

Numbers = npt.NDArray[Any]
"""int32, of which 16 bits are in use."""


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
        colour: what to subtract from luma, in 1/64 of a step: black, and what makes a fraction that is dropped one that
            is rounded; how far white is above black, in steps; then the factors of V in red, of U and of V in green
            (subtracted), and of U in blue, as parts of luma's, in 1/16384.
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
    luma = luma << LUMA_BITS - plan.bits
    if plan.halved:
        luma = luma.reshape(height, 2, chroma_width, 2).sum(axis=(1, 3), dtype=np.int32) >> 2
    us, vs = (
        _samples(plane, line, plan.bits, plan.chroma_height, plan.chroma_width) << 16 - plan.bits
        for plane, line in ((u, u_line), (v, v_line))
    )
    white = plan.colour[1]
    for channel, chroma in enumerate(_chroma(plan, us, vs)):
        colour = np.clip(luma + _spread(plan, chroma, height, chroma_width) >> FRACTION_BITS, 0, white)
        out[..., channel] = _scaled(_scaled(colour, plan.rows).T, plan.columns).T


def _chroma(plan: Plan, us: Numbers, vs: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """What chroma adds to red, green and blue, less black."""
    black, _, red_v, green_u, green_v, blue_u = plan.colour
    base = (1 << CHROMA_SHIFT - 1) - black
    in_turn = np.where(np.arange(plan.chroma_height) % 2, DITHER, -DITHER)[:, None]
    red = base - red_v // 2 + _share(vs, red_v)
    green = base + green_u // 2 + green_v // 2 - _share(us, green_u) - _share(vs, green_v)
    blue = base - blue_u // 2 + _share(us, blue_u)
    return red + in_turn >> CHROMA_SHIFT, green + in_turn >> CHROMA_SHIFT, blue + in_turn >> CHROMA_SHIFT


def _spread(plan: Plan, chroma: Numbers, height: int, width: int) -> Numbers:
    """Chroma for every pixel, ``[height, width · across]``; ``width`` counts samples."""
    near = chroma[:, :width]
    if plan.across == 1:
        wide = 4 * near
    else:
        columns = np.arange(width)
        even = 3 * near + chroma[:, np.maximum(columns - 1, 0)]
        odd = 3 * near + chroma[:, np.minimum(columns + 1, plan.chroma_width - 1)]
        wide = np.stack((even, odd), axis=-1).reshape(plan.chroma_height, 2 * width)
    if plan.down == 1:
        return 2 * wide[:height]
    rows = np.arange(height)
    above = rows // 2
    beyond = np.clip(above + np.where(rows % 2, 1, -1), 0, plan.chroma_height - 1)
    spread: Numbers = wide[above] + (wide[above] + wide[beyond] + 1 >> 1)
    return spread


def _samples(plane: Any, line: int, bits: int, rows: int, columns: int) -> Numbers:
    """A plane's first rows and columns, ``[rows, columns]``, in 16 bits."""
    values: npt.NDArray[np.uint8] = np.frombuffer(plane, np.uint8)
    width = columns * (1 if bits == 8 else 2)
    if line < width or (rows - 1) * line + width > len(values):
        raise ValueError(f"a plane of {len(values)} bytes, {line} a line, is too small for {rows} lines of {width}")
    lines = np.lib.stride_tricks.as_strided(values, (rows, width), (line, 1), writeable=False)
    samples = lines if bits == 8 else np.ascontiguousarray(lines).view("<u2")
    return samples.astype(np.int32) & (1 << bits) - 1


def _scaled(values: Numbers, taps: Taps) -> Numbers:
    """Outputs for inputs, along the first axis."""
    sums = np.full((len(taps.starts), values.shape[1]), 1 << WEIGHT_BITS - 1, np.int32)
    for tap, weights in enumerate(taps.weights.T):
        sums += values[taps.starts + tap] * weights[:, None].astype(np.int32)
    return sums >> WEIGHT_BITS


def _share(values: Numbers, weight: int) -> Numbers:
    """value · weight / 65536, rounded down."""
    shares: Numbers = values * weight >> 16
    return shares


def _reach(taps: Taps) -> int:
    """How many inputs there must be."""
    return int(taps.starts.max()) + taps.weights.shape[1]
