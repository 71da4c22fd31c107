"""Checkpoints: read without running what is in them, recognised, and checked weight by weight.

Understood are ``{"epoch", "arch", "state_dict", …}``, as 3D-ResNet training writes it, and a bare state dict.
"""

from __future__ import annotations

import re
import stat
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmux.engine.errors import ModelError
from clipmux.engine.model import file_sha256

from .architectures import Architecture, build
from .recognise import Overrides, recognise

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "module."
"""What training under DataParallel puts before every key."""

COUNTER = "num_batches_tracked"
"""A batch norm's count of training steps; inference does not use it, and old checkpoints lack it."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose weights fit its architecture exactly.

    Args:
        path: the file.
        architecture: of the network that the weights fit.
        state_dict: finite float32 tensors under the network's own keys, on the CPU; may be mapped from the file.
        arch: what the checkpoint calls itself (``resnet-50``), or an empty string.
        epoch: when it was written, where it says so.
        sha256: of the file.
    """

    path: Path
    architecture: Architecture
    state_dict: dict[str, Tensor]
    arch: str
    epoch: int | None
    sha256: str


def read_checkpoint(path: Path, *, overrides: Overrides | None = None) -> Checkpoint:
    """Read a checkpoint and check that its weights fit the network it is recognised as.

    Raises:
        ModelError: the file cannot be read, holds something else than weights (which is then not run), says one thing
            about itself and is another, or holds weights that do not fit or are not finite.
    """
    overrides = overrides or Overrides()
    content = _load(path)
    tensors = _state_dict(content, path)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    architecture = recognise(shapes, overrides, str(path))
    wrapped = "state_dict" in content
    arch = content.get("arch") if wrapped else None
    arch = arch if isinstance(arch, str) else ""
    epoch = content.get("epoch") if wrapped else None
    if overrides.family is None and overrides.depth is None:
        _check_name(arch, architecture, path)
    return Checkpoint(
        path=path,
        architecture=architecture,
        state_dict=_fit(tensors, architecture, path),
        arch=arch,
        epoch=epoch if isinstance(epoch, int) else None,
        sha256=file_sha256(path),
    )


def _load(path: Path) -> dict[Any, Any]:
    import torch

    if path.is_dir():
        raise ModelError(f"'{path}' is a folder: give a checkpoint file (.pth)")
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"cannot read the checkpoint '{path}' ({error.strerror}): give a .pth file") from None
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        raise ModelError(f"'{path}' is empty: give a checkpoint file (.pth)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats, which the error below covers
            # Only the zip format can be mapped; then weights are read when used, and not kept in memory twice.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # damage to a pickle can raise anything
        # A name of dots and letters, and not the garbage that stands there in a damaged file.
        if code := re.search(r"GLOBAL ([\w.]+) (?:was not|whose)", str(error)):
            raise ModelError(
                f"'{path}' holds '{code[1]}', which is code, not weights, and was not run: save the state_dict alone"
            ) from None
        raise ModelError(
            f"'{path}' is not a readable checkpoint ({_reason(error)}): give a whole file that torch.save wrote"
        ) from None
    if not isinstance(content, dict):
        raise ModelError(f"'{path}' holds a {type(content).__name__}: give a checkpoint with a state_dict")
    return content


def _reason(error: Exception) -> str:
    """What is wrong with the file, out of a message that begins with pages of torch's own advice."""
    text = str(error)
    text = text.partition("WeightsUnpickler error:")[2] or text
    if text.startswith("Weights only load failed"):
        return "it holds more than weights"
    first_line = text.strip().partition("\n")[0][:100]
    return f"{type(error).__name__}: {''.join(filter(str.isprintable, first_line))}"


def _state_dict(content: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint or a bare state dict, without the prefix of DataParallel."""
    import torch

    weights = content.get("state_dict", content)
    if not isinstance(weights, dict) or not weights:
        raise ModelError(f"'{path}' has no weights in its state_dict: give a checkpoint with some")
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ModelError(
                f"'{path}' has {key!r}, of type {type(value).__name__}, among its weights: give a state_dict of tensors"
            )
    if all(key.startswith(PREFIX) for key in weights):
        return {key.removeprefix(PREFIX): value for key, value in weights.items()}
    return dict(weights)


def _check_name(arch: str, architecture: Architecture, path: Path) -> None:
    """What the checkpoint calls itself against what its weights are; names of another form say nothing."""
    if re.fullmatch(r"\w+-\d+", arch) and arch != architecture.name:
        raise ModelError(
            f"'{path}' calls itself '{arch}' and has the weights of {architecture.name}: "
            "give its family and depth yourself if the weights are right"
        )


def _fit(tensors: dict[str, Tensor], architecture: Architecture, path: Path) -> dict[str, Tensor]:
    """The weights in the network's own order, as float32; every key and shape must be the network's."""
    import torch

    with torch.device("meta"):  # shapes without memory
        expected = build(architecture).state_dict()
    known = f"a {architecture.name} of {architecture.classes} classes, widen factor {architecture.widen_factor:g}"
    fitted = {}
    for key, wanted in expected.items():
        if key.endswith(COUNTER):
            fitted[key] = torch.zeros((), dtype=torch.int64)
            continue
        if key not in tensors:
            raise ModelError(
                f"'{path}' lacks '{key}' {list(wanted.shape)}, which {known}, has: give the options it was trained with"
            )
        value = tensors[key]
        if value.shape != wanted.shape:
            raise ModelError(
                f"'{path}' has '{key}' {list(value.shape)} where {known}, has {list(wanted.shape)}: "
                "give the options it was trained with"
            )
        if not value.is_floating_point() or value.layout != torch.strided or value.device.type != "cpu":
            raise ModelError(
                f"'{path}' has '{key}' as {value.dtype}, {value.layout}, on {value.device.type}: "
                "save its weights as plain float tensors"
            )
        fitted[key] = value.detach().to(torch.float32)
        if not bool(torch.isfinite(fitted[key]).all()):
            raise ModelError(
                f"'{path}' has NaN or infinity in '{key}': take a checkpoint from before training diverged"
            )
    for key, value in tensors.items():
        if key not in expected:
            raise ModelError(
                f"'{path}' has '{key}' {list(value.shape)}, which {known}, lacks: give the options it was trained with"
            )
    return fitted
