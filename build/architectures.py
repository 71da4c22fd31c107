"""Which clip networks there are: 3D residual networks as public 3D-ResNet checkpoints hold them.

Three families: ``resnet`` (3D convolutions), ``resnet2p1d`` (each 3D convolution split into a spatial and a temporal
one, "R(2+1)D", arXiv:1711.11248) and ``wideresnet`` (bottlenecks with k times the planes, arXiv:1605.07146).

An ``Architecture`` only describes; ``build`` makes the network, which needs torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipmux.engine.errors import ModelError

if TYPE_CHECKING:
    from .resnet import ResNet

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Blocks in each of the four layers, by depth."""

BASIC_DEPTHS = (10, 18, 34)
"""Depths made of basic blocks (two 3×3×3 convolutions); all others are made of bottlenecks (1, 3, 1)."""

FAMILIES = {
    "resnet": tuple(BLOCKS),
    "resnet2p1d": tuple(BLOCKS),
    "wideresnet": tuple(depth for depth in BLOCKS if depth not in BASIC_DEPTHS),
}
"""The depths that each family has."""

PLANES = (64, 128, 256, 512)
"""Planes of the four layers, before they are widened."""

CHANNELS = 3
"""Channels of a clip: red, green, blue."""


@dataclass(frozen=True)
class Architecture:
    """Everything that decides a network's shapes and arithmetic.

    Args:
        family: ``resnet``, ``resnet2p1d`` or ``wideresnet``.
        depth: one of ``FAMILIES[family]``.
        classes: outputs of the last layer.
        widen_factor: planes are this many times 64, 128, 256, 512, rounded down (for ``wideresnet``, use ``k``).
        k: the whole factor of ``wideresnet``'s planes; 1 for the other families.
        shortcut: ``B``, a 1×1×1 convolution where a block changes shape, or ``A``, subsampling and zero channels.
        conv1_t_size: frames that the first convolution spans.
        conv1_t_stride: frames from one of its positions to the next.
        max_pool: whether a 3×3×3 max pool of stride 2 follows it.

    Raises:
        ModelError: there is no such network.
    """

    family: str
    depth: int
    classes: int
    widen_factor: float = 1.0
    k: int = 1
    shortcut: str = "B"
    conv1_t_size: int = 7
    conv1_t_stride: int = 1
    max_pool: bool = True

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ModelError(f"there is no family '{self.family}': it is one of {', '.join(FAMILIES)}")
        if self.depth not in FAMILIES[self.family]:
            depths = ", ".join(map(str, FAMILIES[self.family]))
            raise ModelError(f"{self.family} has no depth {self.depth}: it is one of {depths}")
        if self.classes < 1:
            raise ModelError(f"a network of {self.classes} classes has no outputs: give 1 or more")
        if not math.isfinite(self.widen_factor) or min(self.planes) < 1:
            raise ModelError(f"widen factor {self.widen_factor} leaves no planes: give {1 / PLANES[0]} or more")
        if self.k < 1 or (self.k > 1 and self.family != "wideresnet"):
            raise ModelError(f"k is {self.k} for {self.family}: it is 1 or more for wideresnet, 1 for all others")
        if self.shortcut not in ("A", "B"):
            raise ModelError(f"there is no shortcut type '{self.shortcut}': it is A or B")
        if self.conv1_t_size < 1:
            raise ModelError(f"conv1_t_size is {self.conv1_t_size}: it is 1 frame or more, 7 in most checkpoints")
        if self.conv1_t_stride < 1:
            raise ModelError(f"conv1_t_stride is {self.conv1_t_stride}: it is 1 or more")

    @property
    def name(self) -> str:
        """What checkpoints call it: ``resnet-50``, ``wideresnet-50``."""
        return f"{self.family}-{self.depth}"

    @property
    def planes(self) -> tuple[int, ...]:
        """Planes of the four layers."""
        return tuple(int(planes * self.widen_factor) * self.k for planes in PLANES)

    @property
    def bottleneck(self) -> bool:
        return self.depth not in BASIC_DEPTHS

    @property
    def expansion(self) -> int:
        """How many times its planes a block puts out."""
        if not self.bottleneck:
            return 1
        return 2 if self.family == "wideresnet" else 4

    @property
    def factorised(self) -> bool:
        """Whether 3D convolutions are split into a spatial and a temporal one."""
        return self.family == "resnet2p1d"


def build(architecture: Architecture) -> ResNet:
    """The network of an architecture, with fresh random weights, in training mode as torch makes it."""
    from .resnet import ResNet

    return ResNet(architecture)
