"""A network without training, of any architecture: to measure speed with, where no checkpoint is at hand.

How fast a device computes does not depend on what the weights say, as long as the numbers stay of ordinary size. So
batch norms and the last layer are fitted to made clips: nothing grows or dies out with depth, and the best class
differs from clip to clip, as it does after training.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ModelFolder

from .architectures import BLOCKS, FAMILIES, Architecture, build
from .export import NORMALISATIONS, check_geometry, require_torch, write_folder
from .shapes import HELD_OUT_SEED, LABELS, Scene
from .staging import check_free

if TYPE_CHECKING:
    from .resnet import ResNet

CLIPS = 8
"""Made clips that the batch norms are fitted to."""

LOGIT_SPREAD = 2.0
"""Standard deviation of the logits over those clips."""

NORMALISATION = "kinetics"


def make_untrained(
    architecture: str,
    output: Path,
    *,
    classes: int = 700,
    widen_factor: float = 1.0,
    frames: int = 16,
    size: int = 112,
    seed: int = 0,
    force: bool = False,
) -> ModelFolder:
    """Make a model folder as ``export_checkpoint`` does, of a network with random weights.

    Args:
        architecture: family and depth, ``resnet-50``.
        output: the folder to make.
        classes: how many; they are called ``class 0`` and so on.
        widen_factor: of its planes.
        frames: frames per clip.
        size: rows and columns of a clip.
        seed: of the weights: the same seed and torch give the same network.
        force: put the new model in the place of one that is there.

    Raises:
        UsageError: torch is not installed, an option is out of range, or ``output`` is taken.
        ModelError: there is no such architecture.
    """
    described = parse_architecture(architecture, classes=classes, widen_factor=widen_factor)
    check_geometry(frames, size)
    if not 0 <= seed < HELD_OUT_SEED:
        raise UsageError(f"the seed is {seed}: it is 0 to {HELD_OUT_SEED - 1}")
    check_free(output, force=force)
    require_torch()
    mean, std = NORMALISATIONS[NORMALISATION]
    return write_folder(
        untrained_network(described, frames=frames, size=size, seed=seed),
        output,
        name=f"{described.name}-untrained",
        labels=[f"class {number}" for number in range(classes)],
        frames=frames,
        size=size,
        mean=mean,
        std=std,
        provenance={"untrained": True, "seed": seed},
    )


def parse_architecture(name: str, *, classes: int, widen_factor: float = 1.0) -> Architecture:
    """``resnet-50`` as an architecture.

    Raises:
        ModelError: there is none of that name.
    """
    family, dash, depth = name.rpartition("-")
    if not dash or family not in FAMILIES or not re.fullmatch(r"[0-9]{1,3}", depth):
        depths = ", ".join(map(str, BLOCKS))
        raise ModelError(
            f"there is no architecture '{name}': write one of {', '.join(FAMILIES)}, a dash, and one of {depths}"
        )
    return Architecture(family, int(depth), classes, widen_factor=widen_factor)


def untrained_network(architecture: Architecture, *, frames: int = 16, size: int = 112, seed: int = 0) -> ResNet:
    """The network in evaluation mode, with random weights and fitted batch norms; torch's own generator is left alone.

    Also what a checkpoint is made of: ``torch.save({"arch": a.name, "state_dict": network.state_dict()}, path)``.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(architecture)
    network.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = None  # statistics of all that was seen, and nothing of what they began with
    network.train()
    with torch.no_grad():
        features = network.features(torch.from_numpy(_made_clips(frames, size, seed)))
        middle = features.mean(0)
        spread = network.fc(features).std(0).mean()
        network.fc.weight.mul_(LOGIT_SPREAD / spread)
        network.fc.bias.copy_(-network.fc.weight @ middle)
    network.eval()
    return network


def _made_clips(frames: int, size: int, seed: int) -> npt.NDArray[np.float32]:
    """Moving shapes, normalised: float32 ``[CLIPS, 3, T, H, W]``."""
    drawn = max(size, 16)  # no scene is smaller
    scenes = [Scene(LABELS[number % len(LABELS)], seed + number, drawn, drawn) for number in range(CLIPS)]
    clips = np.stack([scene.clip(frames=frames) for scene in scenes])[:, :, :size, :size]
    mean, std = (np.asarray(values, np.float32) for values in NORMALISATIONS[NORMALISATION])
    normalised = (clips.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(normalised.transpose(0, 4, 1, 2, 3))
