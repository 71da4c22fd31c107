"""From somebody's ONNX file to a model folder: any clip model with one input and one row of logits per clip.

Clip geometry is read from the file. What would give wrong answers later is put right or refused here: a batch that is
fixed, and a softmax inside the network (a run takes one itself). The folder's network is run before it gets its name.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.device import softmax
from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import LAYOUTS, ModelFolder, file_sha256, read_labels, read_model, write_model
from clipmux.engine.without_telemetry import ov

from . import onnx_edits
from .export import NETWORK, NORMALISATIONS, TOLERANCE, _normalisation, relative_difference
from .staging import check_free, new_content

Shape = tuple[int | None, ...]
"""Axis lengths, None where the file leaves one free."""

Logits = npt.NDArray[np.float32]

SOFTMAX_WITHIN = 1e-3
"""How far from 1 a row of scores may sum and still be taken for a softmax's."""


@dataclass(frozen=True)
class Geometry:
    """What the network's input says, and what was said where it says nothing.

    Args:
        layout: ``NCDHW`` or ``NDHWC``.
        frames: T.
        height: H.
        width: W.
        batch: N where the file fixes it, None where it is free.
    """

    layout: str
    frames: int
    height: int
    width: int
    batch: int | None

    @property
    def clip(self) -> tuple[int, int, int, int]:
        """Shape of one clip, as the network takes it."""
        sizes = (self.frames, self.height, self.width)
        return (3, *sizes) if self.layout == "NCDHW" else (*sizes, 3)


def import_onnx(
    network: Path,
    labels: Path,
    output: Path,
    *,
    mean: str | Sequence[float],
    std: str | Sequence[float] | None = None,
    layout: str | None = None,
    frames: int | None = None,
    size: int | tuple[int, int] | None = None,
    name: str | None = None,
    force: bool = False,
) -> ModelFolder:
    """Make a model folder from an ONNX clip model (X3D, I3D, SlowFast's slow path alone …).

    The network takes one float32 input, ``[n, 3, T, H, W]`` or ``[n, T, H, W, 3]``, RGB, and gives ``[n, classes]``. A
    file that needs no change is copied byte for byte; a fixed batch is freed and a softmax at the end taken out, which
    ``provenance["changes"]`` says. Nothing is left behind when it fails.

    Args:
        network: the ``.onnx`` file; weights in a file beside it are taken in.
        labels: a name per class, in class order: text, one a line, or a JSON with ``labels``.
        output: the folder to make.
        mean: ``kinetics``, ``activitynet``, ``0.5``, or three numbers (R, G, B) for pixels scaled to 0…1. A network
            that normalises by itself takes mean 0 and std 1; one that takes pixels of 0…255, std 1/255.
        std: likewise; ``None`` for the one that belongs to a named ``mean``.
        layout: ``NCDHW`` or ``NDHWC``, only where the file's shape does not tell.
        frames: frames per clip, only where the file leaves them free.
        size: rows and columns of a clip, or both in one number; only where the file leaves them free.
        name: what the network is, for people; the file's name unless given.
        force: put the new model in the place of one that is there.

    Raises:
        UsageError: an option is out of range or contradicts the file, ``output`` is taken, or onnx is needed and not
            installed.
        ModelError: the network or the labels cannot be used.
    """
    if std is None:
        if not isinstance(mean, str) or mean not in NORMALISATIONS:
            raise UsageError(f"mean {mean!r} was given without std: give three numbers (R, G, B) for std too")
        std = mean
    means, stds = _normalisation("mean", mean), _normalisation("std", std)
    names = read_labels(labels)
    check_free(output, force=force)
    if not network.is_file():
        raise ModelError(f"there is no file '{network}': name an ONNX file")
    with new_content(output) as partial:
        path = partial / NETWORK
        changes = _take_in(network, path)
        read = _read(path)
        shape = _input_shape(read, network)
        geometry = find_geometry(shape, layout=layout, frames=frames, size=size, where=str(network))
        changes += _put_right(path, read, geometry, len(names), network)
        write_model(
            ModelFolder(
                path=partial,
                name=name or network.stem,
                network=NETWORK,
                labels=names,
                frames=geometry.frames,
                height=geometry.height,
                width=geometry.width,
                layout=geometry.layout,
                mean=means,
                std=stds,
                provenance=_provenance(network, changes),
            )
        )
    return read_model(output)


def find_geometry(
    shape: Shape,
    *,
    layout: str | None = None,
    frames: int | None = None,
    size: int | tuple[int, int] | None = None,
    where: str = "the network",
) -> Geometry:
    """Which axis of an input is which, and how long.

    ``[None, 3, 16, 182, 224]`` is NCDHW, a clip of 16 frames of 182×224, with a free batch. ``[1, 3, None, None, 3]``
    could be either layout, so it needs ``layout``, and ``frames`` and ``size`` besides.

    Raises:
        UsageError: an option is out of range, contradicts the file, or is missing.
        ModelError: it is not the input of a clip model.
    """
    shown = f"[{', '.join('?' if length is None else str(length) for length in shape)}]"
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"layout is '{layout}': give one of {', '.join(LAYOUTS)}")
    if len(shape) != 5:
        raise ModelError(f"'{where}' takes {shown}: a clip model takes five axes, [n, 3, T, H, W] or [n, T, H, W, 3]")
    possible = [each for each in LAYOUTS if shape[each.index("C")] == 3]
    if not possible:
        possible = [each for each in LAYOUTS if shape[each.index("C")] is None]
    if not possible:
        raise ModelError(f"'{where}' takes {shown}: RGB clips need 3 channels, on the second or on the last axis")
    if layout is None and len(possible) == 2:
        raise UsageError(f"'{where}' takes {shown}, which may be {' or '.join(possible)}: say --layout")
    chosen = layout or possible[0]
    if shape[chosen.index("C")] not in (3, None):
        raise UsageError(f"'{where}' takes {shown}, which is not {chosen}: leave --layout out")
    height, width = (size, size) if size is None or isinstance(size, int) else size
    lengths = [
        _length(shape[chosen.index(axis)], said, axis=axis, option=option, where=f"'{where}' takes {shown}")
        for axis, said, option in (("D", frames, "--frames"), ("H", height, "--size"), ("W", width, "--size"))
    ]
    return Geometry(chosen, lengths[0], lengths[1], lengths[2], shape[0])


def _length(fixed: int | None, said: int | None, *, axis: str, option: str, where: str) -> int:
    what = {"D": "frames", "H": "rows", "W": "columns"}[axis]
    if fixed is None and said is None:
        raise UsageError(f"{where}, which leaves the {what} free: say {option}")
    if fixed is not None and said not in (None, fixed):
        raise UsageError(f"{where}, whose {what} are {fixed}, not {said}: leave {option} out")
    length = fixed if said is None else said
    assert length is not None  # noqa: S101  (one of the two is there)
    if not 1 <= length <= 4096:
        raise UsageError(f"{where}, with {length} {what}: they are 1 to 4096")
    return length


def _take_in(network: Path, path: Path) -> list[str]:
    """Copy the file; one that needs others beside it is written anew, as one file. What was changed, in words."""
    shutil.copyfile(network, path)
    try:
        _read(path)
    except RuntimeError as error:
        reason = _last_line(error)
    else:
        return []
    onnx_edits.save(onnx_edits.load(network, f"reading '{network}', which OpenVINO alone cannot ({reason}),"), path)
    try:
        _read(path)
    except RuntimeError:
        raise ModelError(f"OpenVINO cannot read '{network}' ({reason}): export it to ONNX opset 11 to 17") from None
    return ["weights taken in from a file beside it"]


def _read(path: Path) -> Any:
    """An ONNX file as OpenVINO has it. Told that it is ONNX, OpenVINO does not try (and print) what else it might be.

    Raises:
        RuntimeError: it cannot be read.
    """
    reader = ov.frontend.FrontEndManager().load_by_framework("onnx")
    try:
        return reader.convert(reader.load(str(path)))
    except Exception as error:  # readers raise kinds of their own
        raise RuntimeError(_last_line(error)) from None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(error).__name__


def _input_shape(read: Any, network: Path) -> Shape:
    """Shape of the only input, with one output beside it; float32 both.

    Raises:
        ModelError: there are more, or they are of another type.
    """
    if len(read.inputs) != 1 or len(read.outputs) != 1:
        shapes = ", ".join(str(end.partial_shape) for end in (*read.inputs, *read.outputs))
        raise ModelError(
            f"'{network}' has {len(read.inputs)} inputs and {len(read.outputs)} outputs ({shapes}): "
            "export it with one input and one output"
        )
    shape = read.input(0).partial_shape
    for end, what in ((read.input(0), f"takes {shape}"), (read.output(0), f"gives {read.output(0).partial_shape}")):
        kind = end.element_type.get_type_name()
        if kind != "f32":
            raise ModelError(f"'{network}' {what} of type {kind}: export it with float32 inputs and outputs")
    if shape.rank.is_dynamic:
        raise ModelError(f"'{network}' takes an input of any shape: export it for clips of five axes")
    return tuple(None if axis.is_dynamic else axis.get_length() for axis in shape)


def _put_right(path: Path, read: Any, geometry: Geometry, classes: int, network: Path) -> list[str]:
    """Free the batch and take out a softmax where there is need, and check what came of it; the changes, in words."""
    _check_output(read.output(0).partial_shape, classes, network)
    clips = np.random.default_rng(0).standard_normal((3, *geometry.clip), dtype=np.float32)
    answers = _answers(read, clips, geometry.batch or 1, network)
    _check_output(ov.PartialShape(list(answers.shape)), classes, network)
    if not np.isfinite(answers).all():
        raise ModelError(f"'{network}' gives scores that are no numbers for a random clip: check its weights")
    if read.output(0).get_node().input_value(0).get_node().get_type_name() == "Sigmoid":
        raise ModelError(f"'{network}' ends in a Sigmoid, so its classes do not exclude each other: export it without")
    changes = []
    probabilities = _are_probabilities(answers)
    if geometry.batch is not None or probabilities:
        what = "a softmax at its end to take out" if probabilities else "a fixed batch to free"
        model = onnx_edits.load(path, f"importing '{network}', which has {what},")
        if geometry.batch is not None:
            onnx_edits.free_batch(model)
            changes.append(f"batch freed, it was {geometry.batch}")
        if probabilities:
            if not onnx_edits.drop_softmax(model):
                raise ModelError(
                    f"'{network}' gives probabilities, and not by a Softmax at its end that could be taken out: "
                    "export it without, scores would be softmaxed twice"
                )
            changes.append("softmax at the end taken out, it gave probabilities")
        onnx_edits.save(model, path)
    _check_batches(path, clips, answers, network, probabilities=probabilities)
    return changes


def _check_output(shape: Any, classes: int, network: Path) -> None:
    if shape.rank.is_static and shape.rank.get_length() != 2:
        raise ModelError(f"'{network}' gives {shape}: a clip model gives one row of logits per clip, [n, classes]")
    if not shape.compatible(ov.PartialShape([-1, classes])):
        raise ModelError(f"'{network}' gives {shape}, which does not fit {classes} labels: give one label per class")


def _check_batches(
    path: Path, clips: npt.NDArray[np.float32], wanted: Logits, network: Path, *, probabilities: bool
) -> None:
    """The written network gives each clip the answer it had, alone and with others in one batch.

    Raises:
        ModelError: it does not.
    """
    try:
        read = _read(path)
    except RuntimeError:
        read = None
    for batch in (1, len(clips)):
        try:
            logits = None if read is None else _answers(read, clips, batch, network)
        except ModelError:
            logits = None
        if logits is None or logits.shape != wanted.shape:
            raise ModelError(f"'{network}' cannot be run with {batch} clips in a batch: export it with a free batch")
        got = softmax(logits) if probabilities else logits
        difference = relative_difference(got, wanted)
        if not difference <= TOLERANCE:  # NaN too
            why = "its softmax is not the last thing it does" if probabilities else "clips of a batch change each other"
            raise ModelError(
                f"'{network}' answers differently by {difference:.2g} with {batch} clips in a batch, {why}: "
                "export it with a free batch and logits as its output"
            )


def _answers(read: Any, clips: npt.NDArray[np.float32], batch: int, network: Path) -> Logits:
    """What a network gives for clips, ``batch`` at a time; the last batch is filled up with its first clip."""
    try:
        compiled = ov.Core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        rows = []
        for start in range(0, len(clips), batch):
            part = clips[start : start + batch]
            filled = np.concatenate([part, *[part[:1]] * (batch - len(part))])
            rows.append(compiled([filled])[0][: len(part)].copy())
        return np.concatenate(rows)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"OpenVINO cannot run '{network}' on clips {list(clips.shape[1:])} ({_last_line(error)}): "
            "check --frames and --size, or export it again"
        ) from None


def _are_probabilities(scores: Logits) -> bool:
    """Rows of at least two numbers, none negative, that sum to 1: a softmax was taken already."""
    sums = scores.sum(axis=1)
    return bool(scores.shape[1] > 1 and scores.min() >= 0 and np.abs(sums - 1).max() < SOFTMAX_WITHIN)


def _provenance(network: Path, changes: list[str]) -> dict[str, object]:
    """Where the network came from, without this machine's paths."""
    return {
        "imported": network.name,
        "imported_sha256": file_sha256(network),
        "changes": changes,
        "clipmux": metadata.version("clipmux"),
        "openvino": metadata.version("openvino"),
    }
