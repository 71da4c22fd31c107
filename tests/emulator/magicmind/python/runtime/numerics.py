"""What a precision does to numbers: the names of the precisions are public [V], their arithmetic is not [–].

Here: ``float16`` rounds every weight and every result to half precision, so that it overflows as half does (sums are
kept in float32, as matrix units do); ``qint8`` and ``qint16`` put the inputs and the weights of convolutions and
products on a grid of that many bits, and leave all else to the precision they are mixed with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .operators import QUANTISED, Node

Range = tuple[float, float]

ANY = ""
"""The name under which ``custom_ranges`` has a range for every tensor [V]."""


def on_symmetric_grid(x: Tensor, limit: Tensor | float, bits: int) -> Tensor:
    """``x`` to the nearest of 2^bits - 1 values from -limit to limit. ``limit`` may be a tensor that fits ``x``."""
    steps = 2 ** (bits - 1) - 1
    scale = torch.as_tensor(limit, dtype=x.dtype, device=x.device) / steps
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # of zeros only: any grid has a zero
    return (x / scale).round().clamp(-steps, steps) * scale


def on_asymmetric_grid(x: Tensor, low: float, high: float, bits: int) -> Tensor:
    """``x`` to the nearest of 2^bits values from low to high, stretched so that 0 is one of them."""
    low, high = min(low, 0.0), max(high, 0.0)
    steps = 2**bits - 1
    scale = (high - low) / steps or 1.0
    zero = round(-low / scale)
    return ((x / scale).round() + zero).clamp(0, steps).sub(zero) * scale


@dataclass(frozen=True)
class Numerics:
    """The arithmetic of one model.

    Args:
        half: results and weights are rounded to half precision.
        bits: of the integer grid of convolutions and products, None for no such grid.
        per_axis: each output channel of a weight has a grid of its own.
        symmetric: the grid of activations reaches as far below zero as above.
        ranges: of activations, by their names in the graph.
    """

    half: bool = False
    bits: int | None = None
    per_axis: bool = False
    symmetric: bool = True
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def of(cls, precision: str, *, granularity: str, algorithm: str, ranges: Mapping[str, Range]) -> Numerics:
        """Of a ``precision_mode``, ``weight_quant_granularity`` and ``activation_quant_algo``."""
        bits = {"qint8": 8, "qint16": 16}.get(precision.partition("_")[0])
        half, per_axis = precision.endswith("float16"), granularity == "per_axis"
        return cls(half, bits, per_axis, algorithm == "symmetric", ranges)

    def range_of(self, name: str) -> Range | None:
        return self.ranges.get(name, self.ranges.get(ANY))

    def result(self, x: Tensor) -> Tensor:
        """A result, as precise as the precision keeps it."""
        return x.half().float() if self.half and x.dtype == torch.float32 else x

    def weight(self, node: Node, index: int, x: Tensor) -> Tensor:
        """A constant input of a node."""
        if self.bits is None or node.kind not in QUANTISED or index > 1:
            return self.result(x)
        if not self.per_axis:
            return on_symmetric_grid(x, x.abs().max(), self.bits)
        channel = 0 if node.kind == "Conv" or node.get("transB", 0) else x.dim() - 1
        others = tuple(axis for axis in range(x.dim()) if axis != channel)
        return on_symmetric_grid(x, x.abs().amax(dim=others, keepdim=True), self.bits)

    def activation(self, node: Node, index: int, name: str, x: Tensor) -> Tensor:
        """An input of a node that is computed.

        Raises:
            KeyError: it has to be quantised and has no range.
        """
        if self.bits is None or node.kind not in QUANTISED or index > 1 or x.is_meta or not x.is_floating_point():
            return x
        found = self.range_of(name)
        if found is None:
            raise KeyError(f"no range for '{name}'")
        if self.symmetric:
            return on_symmetric_grid(x, max(abs(found[0]), abs(found[1])), self.bits)
        return on_asymmetric_grid(x, *found, self.bits)
