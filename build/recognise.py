"""Which architecture some weights belong to, told from the names and shapes alone (pure; no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from clipmux.engine.errors import ModelError

from .architectures import BASIC_DEPTHS, BLOCKS, PLANES, Architecture

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Overrides:
    """What a person knows better than the file says; ``None`` leaves it to the weights.

    ``conv1_t_stride`` and ``no_max_pool`` leave no trace in the weights: a checkpoint trained with other values than
    the defaults (1 and ``False``) needs them said, and would otherwise give wrong answers without an error.
    """

    family: str | None = None
    depth: int | None = None
    widen_factor: float | None = None
    shortcut: str | None = None
    conv1_t_size: int | None = None
    conv1_t_stride: int | None = None
    no_max_pool: bool | None = None


def recognise(shapes: Shapes, overrides: Overrides, where: str) -> Architecture:
    """The architecture that these weights fit, with what ``overrides`` says put in its place.

    Whether *every* weight fits is for the caller to check, against the network itself.

    Args:
        shapes: of each weight, by its state-dict key.
        overrides: takes the place of what the shapes say.
        where: the file's name, for errors.

    Raises:
        ModelError: these are not the weights of any network that ``build`` can make.
    """

    def size(key: str, axis: int) -> int:
        if len(shapes.get(key, ())) <= axis:
            raise ModelError(f"'{where}' has no weights '{key}': give the checkpoint of a 3D-ResNet")
        return shapes[key][axis]

    factorised = "conv1_s.weight" in shapes
    bottleneck = "layer1.0.conv3.weight" in shapes
    convolution = "conv1" if bottleneck else "conv2_t" if factorised else "conv2"
    stem_t_size = size("conv1_t.weight" if factorised else "conv1.weight", 2)
    planes = [size(f"layer{layer}.0.{convolution}.weight", 0) for layer in (1, 2, 3, 4)]

    family = overrides.family
    if family is None:
        wide = bottleneck and size("layer1.0.conv3.weight", 0) == 2 * planes[0]
        family = "resnet2p1d" if factorised else "wideresnet" if wide else "resnet"
    if family == "wideresnet":
        k, widen_factor = max(1, planes[0] // PLANES[0]), 1.0
    else:
        k, widen_factor = 1, roundest_factor(planes)

    return Architecture(
        family=family,
        depth=_depth(shapes, bottleneck=bottleneck, where=where) if overrides.depth is None else overrides.depth,
        classes=size("fc.weight", 0),
        widen_factor=widen_factor if overrides.widen_factor is None else overrides.widen_factor,
        k=k,
        shortcut=overrides.shortcut or ("B" if any(".downsample." in key for key in shapes) else "A"),
        conv1_t_size=stem_t_size if overrides.conv1_t_size is None else overrides.conv1_t_size,
        conv1_t_stride=1 if overrides.conv1_t_stride is None else overrides.conv1_t_stride,
        max_pool=not overrides.no_max_pool,
    )


def _depth(shapes: Shapes, *, bottleneck: bool, where: str) -> int:
    """Depths 34 and 50 have equally many blocks; the kind of block tells them apart."""
    layers = [{key.split(".")[1] for key in shapes if key.startswith(f"layer{layer}.")} for layer in (1, 2, 3, 4)]
    blocks = tuple(map(len, layers))
    for depth, known in BLOCKS.items():
        if known == blocks and (depth not in BASIC_DEPTHS) == bottleneck:
            return depth
    kind = "bottlenecks" if bottleneck else "basic blocks"
    raise ModelError(f"'{where}' has layers of {blocks} {kind}: no 3D-ResNet has these, give an unaltered checkpoint")


def roundest_factor(planes: list[int]) -> float:
    """The widen factor that gives these planes: the exact one, else the one with the fewest decimals.

    Planes are rounded down from factor × 64, 128 …: 19, 38, 76, 153 could come from any factor in
    [0.298828125, 0.30078125), so it is 0.3; but 4, 8, 16, 32 is 0.0625 exactly, not 0.063. Where no factor gives them
    all, the largest ratio comes back.
    """
    low = max(width / base for width, base in zip(planes, PLANES, strict=True))
    if [base * low for base in PLANES] == planes:
        return low
    for decimals in range(10):
        scale = 10.0**decimals
        factor = math.ceil(low * scale) / scale
        if [int(base * factor) for base in PLANES] == planes:
            return factor
    return low
