"""From a checkpoint to a model folder: ``model.onnx``, which every backend reads, and ``model.json``.

What is written is checked before it gets its name: the file's opset and shapes, and its answers against torch's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import math
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ModelFolder, read_labels, read_model, write_model

from . import onnx_edits
from .architectures import CHANNELS
from .recognise import Overrides
from .staging import check_free, new_content

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .resnet import ResNet

OPSET = 11
"""The ONNX opset of exported networks: old enough for every parser, MagicMind's among them."""

INPUT, OUTPUT, NETWORK = "clip", "logits", "model.onnx"

TOLERANCE = 1e-4
"""Largest difference allowed between the file's logits and torch's, relative to the largest logit."""

Triple = tuple[float, float, float]

NORMALISATIONS: dict[str, tuple[Triple, Triple]] = {
    "kinetics": ((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737)),
    "activitynet": ((0.4477, 0.4209, 0.3906), (0.2767, 0.2695, 0.2714)),
    "0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation per RGB channel, of pixels scaled to 0…1, by their names in 3D-ResNet training."""


def require_torch() -> None:
    """What reads checkpoints and writes ONNX is optional: a run needs neither.

    Raises:
        UsageError: torch or onnx is not installed.
    """
    for package in ("torch", "onnx"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"reading a checkpoint needs {package}: pip install 'clipmux[torch]'")


def export_checkpoint(
    checkpoint: Path,
    labels: Path,
    output: Path,
    *,
    mean: str | Sequence[float] = "kinetics",
    std: str | Sequence[float] | None = None,
    frames: int = 16,
    size: int = 112,
    overrides: Overrides | None = None,
    force: bool = False,
) -> ModelFolder:
    """Make a model folder from a checkpoint.

    The network takes float32 ``clip`` ``[n, 3, frames, size, size]``, normalised, and gives float32 ``logits``
    ``[n, classes]``, for any n. Nothing is left behind when it fails.

    Args:
        checkpoint: a ``.pth`` file.
        labels: a name per class, in class order: text, one a line, or a JSON with ``labels``.
        output: the folder to make.
        mean: ``kinetics``, ``activitynet``, ``0.5``, or three numbers (R, G, B) for pixels scaled to 0…1.
        std: likewise; ``None`` for the one that belongs to a named ``mean``.
        frames: frames per clip.
        size: rows and columns of a clip.
        overrides: what the checkpoint's weights do not say, or say wrongly.
        force: put the new model in the place of one that is there.

    Raises:
        UsageError: torch is not installed, an option is out of range, or ``output`` is taken.
        ModelError: the checkpoint or the labels cannot be used, or the network written does not answer as torch does.
    """
    require_torch()
    from .checkpoint import read_checkpoint

    means = _normalisation("mean", mean)
    if std is None:
        if not isinstance(mean, str) or mean not in NORMALISATIONS:
            raise UsageError(f"mean {mean!r} was given without std: give three numbers (R, G, B) for std too")
        std = mean
    stds = _normalisation("std", std)
    check_geometry(frames, size)
    names = read_labels(labels)
    check_free(output, force=force)
    read = read_checkpoint(checkpoint, overrides=overrides)
    classes = read.architecture.classes
    if classes != len(names):
        raise ModelError(
            f"'{checkpoint}' has {classes} classes and '{labels}' {len(names)} labels: "
            "give the labels it was trained with"
        )
    return write_folder(
        _network(read),
        output,
        name=read.architecture.name,
        labels=names,
        frames=frames,
        size=size,
        mean=means,
        std=stds,
        provenance=_provenance(read),
    )


def check_geometry(frames: int, size: int) -> None:
    """Refuse clips that no model folder can have.

    Raises:
        UsageError: a length is out of range.
    """
    for name, value in (("frames", frames), ("size", size)):
        if not 1 <= value <= 4096:
            raise UsageError(f"{name} is {value}: it is 1 to 4096")


def write_folder(
    network: ResNet,
    output: Path,
    *,
    name: str,
    labels: Sequence[str],
    frames: int,
    size: int,
    mean: Triple,
    std: Triple,
    provenance: dict[str, object],
) -> ModelFolder:
    """Write a network in evaluation mode to a folder that is free, checked; with what ``model.json`` says of any.

    Raises:
        ModelError: torch cannot write it, or what it wrote does not answer as the network does.
    """
    with new_content(output) as partial:
        path = partial / NETWORK
        shape = (CHANNELS, frames, size, size)
        _write_onnx(network, shape, path)
        _check_interface(path, shape, len(labels))
        _check_answers(path, network, shape)
        tools = {package: metadata.version(package) for package in ("clipmux", "torch")}
        write_model(
            ModelFolder(
                path=partial,
                name=name,
                network=NETWORK,
                labels=tuple(labels),
                frames=frames,
                height=size,
                width=size,
                mean=mean,
                std=std,
                provenance={
                    **provenance,
                    "architecture": dataclasses.asdict(network.architecture),
                    "opset": OPSET,
                    **tools,
                },
            )
        )
    return read_model(output)


def _normalisation(what: str, value: str | Sequence[float]) -> Triple:
    if isinstance(value, str) and value in NORMALISATIONS:
        return NORMALISATIONS[value][0 if what == "mean" else 1]
    given = value.split(",") if isinstance(value, str) else list(value)
    try:
        numbers = [float(number) for number in given]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        known = ", ".join(NORMALISATIONS)
        raise UsageError(f"{what} is {value!r}: give one of {known}, or three numbers (R, G, B)")
    if what == "mean" and not all(0 <= number <= 1 for number in numbers):
        raise UsageError(f"mean is {value!r}: it is of pixels scaled to 0…1, so divide one of pixels up to 255 by 255")
    if what == "std" and min(numbers) <= 0:
        raise UsageError(f"std is {value!r}: it is above 0")
    return (numbers[0], numbers[1], numbers[2])


def _network(checkpoint: Checkpoint) -> ResNet:
    import torch

    from .architectures import build

    with torch.device("meta"):  # no memory for weights that the checkpoint's take the place of
        network = build(checkpoint.architecture)
    network.load_state_dict(checkpoint.state_dict, assign=True)
    network.eval().requires_grad_(False)
    return network


def _write_onnx(network: ResNet, shape: tuple[int, ...], path: Path) -> None:
    import torch

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        # The TorchScript exporter is deprecated, and still the one that writes opset 11. It also warns that sizes
        # become constants, which is meant.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                network,
                (torch.zeros(1, *shape),),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
            )
        except (RuntimeError, ValueError, OSError) as error:
            first_line = next(iter(str(error).splitlines()), "")
            raise ModelError(
                f"torch could not export a {network.architecture.name} for clips {list(shape)} ({first_line[:120]}): "
                "free some memory and disk space"
            ) from None
    written = onnx_edits.load(path, "exporting")
    if onnx_edits.fold_constants(written):
        onnx_edits.save(written, path)


def _check_interface(path: Path, shape: tuple[int, ...], classes: int) -> None:
    """The file says opset 11, one input and one output of the right shapes, and a free batch."""
    import onnx

    model = onnx.load(str(path))
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    ends = [(end.name, end.type.tensor_type.shape.dim) for end in (*model.graph.input, *model.graph.output)]
    seen = [(name, bool(dims[0].dim_param), tuple(dim.dim_value for dim in dims[1:])) for name, dims in ends]
    wanted = [(INPUT, True, shape), (OUTPUT, True, (classes,))]
    if opsets != {"": OPSET} or seen != wanted:
        raise ModelError(f"torch wrote opsets {opsets} and {seen}, not opset {OPSET} and {wanted}: try another torch")


def _check_answers(path: Path, network: ResNet, shape: tuple[int, ...]) -> None:
    """The file's logits, computed by OpenVINO in float32, equal torch's, for a batch of one and of several."""
    import torch

    from clipmux.engine.without_telemetry import ov

    try:
        compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise ModelError(f"OpenVINO cannot read the exported network ({first_line[:120]}): try another torch") from None
    random = np.random.default_rng(0)
    for batch in (1, 3):
        clips = random.standard_normal((batch, *shape), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(clips)).numpy()
        difference = relative_difference(compiled([clips])[0], expected)
        if not difference <= TOLERANCE:  # NaN too
            raise ModelError(
                f"the exported network differs from torch by {difference:.2g} of the largest logit for {batch} clips "
                f"(allowed: {TOLERANCE:g}): check the checkpoint's weights"
            )


def relative_difference(logits: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """The largest difference, as a part of the largest expected logit; NaN where either has one."""
    return float(np.abs(logits - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def _provenance(checkpoint: Checkpoint) -> dict[str, object]:
    """Where the network came from, without this machine's paths."""
    return {
        "checkpoint": checkpoint.path.name,
        "checkpoint_sha256": checkpoint.sha256,
        "arch": checkpoint.arch,
        "epoch": checkpoint.epoch,
    }
