"""The network of an ``Architecture``, in torch, with the state-dict names of public 3D-ResNet checkpoints.

One chain of convolutions serves the stem and every block, whole or factorised, basic or bottleneck.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from .architectures import BLOCKS, CHANNELS, Architecture


def factorised_planes(planes_in: int, planes_out: int, size: tuple[int, int, int]) -> int:
    """Planes between the spatial and the temporal half, so that both together have the weights of the whole.

    ``M = t·d²·N_in·N_out / (d²·N_in + t·N_out)``, rounded down: R(2+1)D, arXiv:1711.11248, section 3.5.
    64 planes to 64 by 3×3×3: 110592 / 768 = 144.
    """
    frames, height, width = size
    whole = planes_in * planes_out * frames * height * width
    return whole // (planes_in * height * width + planes_out * frames)


class ConvolutionChain(nn.Module):
    """Convolutions, each followed by its batch norm, under the names that checkpoints give them.

    ``convN`` and ``bnN`` lie flat in the module, not in a list of their own; a factorised one becomes ``convN_s``,
    ``bnN_s`` (space) and ``convN_t``, ``bnN_t`` (time).
    """

    def __init__(self, *, factorised: bool) -> None:
        super().__init__()
        self.factorised = factorised
        self.steps: list[str] = []  # "1", "2", or "1_s", "1_t": in the order they run

    def append(self, planes_in: int, planes_out: int, size: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        """Add the next convolution; 1×1×1 ones are never split."""
        number = len({step.partition("_")[0] for step in self.steps}) + 1
        if self.factorised and max(size) > 1:
            between = factorised_planes(planes_in, planes_out, size)
            self._add(f"{number}_s", planes_in, between, (1, *size[1:]), (1, *stride[1:]))
            self._add(f"{number}_t", between, planes_out, (size[0], 1, 1), (stride[0], 1, 1))
        else:
            self._add(str(number), planes_in, planes_out, size, stride)

    def _add(self, step: str, planes_in: int, planes_out: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        padding = tuple(n // 2 for n in size)
        convolution = nn.Conv3d(planes_in, planes_out, size, stride=stride, padding=padding, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.add_module(f"conv{step}", convolution)
        self.add_module(f"bn{step}", nn.BatchNorm3d(planes_out))
        self.steps.append(step)

    def stages(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Each convolution with its batch norm, in order."""
        for step in self.steps:
            yield getattr(self, f"conv{step}"), getattr(self, f"bn{step}")


class Block(ConvolutionChain):
    """A residual block, basic or bottleneck: ``relu(chain(x) + shortcut(x))``, no relu after the chain's last norm."""

    def __init__(self, architecture: Architecture, planes_in: int, planes: int, stride: int) -> None:
        super().__init__(factorised=architecture.factorised)
        planes_out = planes * architecture.expansion
        one, three = (1, 1, 1), (3, 3, 3)
        strides = (stride, stride, stride)
        if architecture.bottleneck:
            self.append(planes_in, planes, one, one)
            self.append(planes, planes, three, strides)
            self.append(planes, planes_out, one, one)
        else:
            self.append(planes_in, planes, three, strides)
            self.append(planes, planes_out, three, one)
        self.downsample: nn.Module | None = None
        if stride != 1 or planes_in != planes_out:
            if architecture.shortcut == "A":
                self.downsample = Subsample(stride, planes_out - planes_in)
            else:
                convolution = nn.Conv3d(planes_in, planes_out, 1, stride=stride, bias=False)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                self.downsample = nn.Sequential(convolution, nn.BatchNorm3d(planes_out))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for index, (convolution, norm) in enumerate(self.stages()):
            if index:
                out = functional.relu(out)
            out = norm(convolution(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(out + shortcut)


class Subsample(nn.Module):
    """Shortcut type A: every ``stride``-th position in time and space, and zeros for the planes it lacks."""

    def __init__(self, stride: int, missing_planes: int) -> None:
        super().__init__()
        self.stride = stride
        self.missing_planes = missing_planes

    def forward(self, x: Tensor) -> Tensor:
        out = functional.avg_pool3d(x, kernel_size=1, stride=self.stride)
        return functional.pad(out, (0, 0, 0, 0, 0, 0, 0, self.missing_planes))


class ResNet(ConvolutionChain):
    """A clip network: float32 ``[n, 3, T, H, W]``, normalised, to logits ``[n, classes]``."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(factorised=architecture.factorised)
        self.architecture = architecture
        planes = architecture.planes
        self.append(CHANNELS, planes[0], (architecture.conv1_t_size, 7, 7), (architecture.conv1_t_stride, 2, 2))
        planes_in = planes[0]
        for index, (blocks, width) in enumerate(zip(BLOCKS[architecture.depth], planes, strict=True)):
            layer = nn.Sequential()
            for position in range(blocks):
                stride = 2 if index > 0 and position == 0 else 1
                layer.append(Block(architecture, planes_in, width, stride))
                planes_in = width * architecture.expansion
            self.add_module(f"layer{index + 1}", layer)
        self.fc = nn.Linear(planes_in, architecture.classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees: ``[n, planes]``, the mean over time and space."""
        for convolution, norm in self.stages():
            x = functional.relu(norm(convolution(x)))
        if self.architecture.max_pool:
            x = functional.max_pool3d(x, kernel_size=3, stride=2, padding=1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        # The mean over t, h and w as a 2-D pool over [t, h*w], which is equal: some parsers know no 3-D global pool.
        # Sizes as plain numbers: in a traced export only the batch stays free.
        planes, frames, height, width = (int(n) for n in x.shape[1:])
        x = functional.adaptive_avg_pool2d(x.reshape(-1, planes, frames, height * width), 1)
        return torch.flatten(x, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits
