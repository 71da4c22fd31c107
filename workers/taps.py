"""Which pixels of a row or column make one pixel of the scaled crop, and with what weights. Pure.

Scaling and cropping are linear and separate per axis: along each, the pixels of the crop are a matrix times the pixels
of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ONE = 1 << 7
"""What stands for 1: sums of shares of bytes fit into 16 bits."""

Matrix = npt.NDArray[np.float64]
"""``[outputs, inputs]``."""


@dataclass(frozen=True, eq=False)
class Taps:
    """A matrix whose rows are nearly all zeros, in fixed point.

    Args:
        starts: int32 ``[outputs]``, the first input that each output needs.
        weights: uint8 ``[outputs, taps]`` of the inputs from there on, in units of 1/``ONE``.
    """

    starts: npt.NDArray[np.int32]
    weights: npt.NDArray[np.uint8]


def crop_offset(size: int, crop: int) -> int:
    """Where a centre crop begins, half to even as in the reference: 3D-ResNets-PyTorch, ``CenterCrop``."""
    return round((size - crop) / 2)


def bilinear(size: int, scaled: int, crop: int) -> Matrix:
    """Scale ``size`` pixels to ``scaled`` and cut the centre ``crop`` out, as PIL's antialiased bilinear resize does.

    The filter is a triangle, as wide as two output pixels when scaling down and as two input pixels when scaling up,
    sampled at the centres of input pixels (Pillow, ``Resample.c``, ``precompute_coeffs``).
    """
    step = size / scaled
    reach = max(step, 1.0)
    centres = (np.arange(crop) + crop_offset(scaled, crop) + 0.5) * step
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), size)
    inputs = np.arange(size)
    weights = np.maximum(1.0 - np.abs((inputs[None] + 0.5 - centres[:, None]) / reach), 0.0)
    weights[(inputs < first[:, None]) | (inputs >= last[:, None])] = 0.0
    shares: Matrix = weights / weights.sum(axis=1, keepdims=True)
    return shares


def of_pairs(matrix: Matrix) -> Matrix:
    """The same outputs from means of two neighbouring inputs, of which there is an even number."""
    pairs: Matrix = matrix.reshape(len(matrix), -1, 2).sum(axis=2)
    return pairs


def fixed_point(matrix: Matrix, gain: float = 1.0) -> Taps:
    """A matrix times ``gain`` in fixed point.

    The sums of its rows, which are 1, come out alike: what rounding takes from a weight, the next one gets.
    """
    inputs = matrix.shape[1]
    needed = matrix > 0
    starts = needed.argmax(axis=1)
    taps = int((inputs - needed[:, ::-1].argmax(axis=1) - starts).max())
    starts = np.minimum(starts, inputs - taps)
    shares = np.take_along_axis(matrix, starts[:, None] + np.arange(taps), axis=1)
    sums = np.floor(np.cumsum(shares, axis=1) * round(gain * ONE) + 0.5)
    weights = np.diff(sums, axis=1, prepend=0)
    return Taps(starts.astype(np.int32), weights.astype(np.uint8))
