"""OpenVINO on the CPU: the default backend, at float32, bfloat16, float16 or int8.

uint8 ``NDHWC`` goes in; conversion, normalisation and layout are part of the compiled model. One stream per core and
small batches measured better than large batches on all cores at once when decoders share the CPU.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ANY_TARGET, ModelFolder, file_sha256
from clipmux.engine.without_telemetry import ov

from .base import BATCH_ON_CPU, Backend, Runner
from .cores import on_cpu

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
"""Precision of a model folder to OpenVINO's hint. An int8 network says which parts are; the hint is for the others."""

CAPABILITIES = {"bf16": "BF16", "f16": "FP16"}
"""What OpenVINO calls a CPU's ability to compute with a hint; every CPU computes in float32."""


class OpenVinoBackend(Backend):
    """A model folder's network, ONNX or OpenVINO's own format (IR), on the CPU.

    The precision is always said: left alone, OpenVINO takes bfloat16 on CPUs that have it, which moves scores by 0.01.
    Where the CPU lacks the precision, it is float32, and ``chosen`` tells: OpenVINO itself would take bfloat16 for
    float16, with an eighth of its steps.

    Raises:
        ModelError: the network cannot be read, or does not fit ``model.json``.
    """

    name = "openvino"

    def __init__(self, model: ModelFolder, *, device: str, max_batch: int) -> None:
        if not on_cpu(device):
            raise UsageError(f"the openvino backend has no device '{device}': use --device cpu")
        if model.precision not in HINTS:
            raise ModelError(
                f"'{model.path}' has the precision {model.precision}, which the openvino backend does not know: "
                f"compile it to one of {', '.join(HINTS)}"
            )
        self.device = device
        self.max_batch = max_batch
        self.preferred_batch = min(BATCH_ON_CPU, max_batch)
        self.runners = len(os.sched_getaffinity(0))
        check_files(model)
        core = ov.Core()
        network = read_network(core, model)
        check_network(model, network)
        hint = HINTS[model.precision]
        if CAPABILITIES.get(hint, "FP32") not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            hint = "f32"
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "NUM_STREAMS": str(self.runners),
            "INFERENCE_NUM_THREADS": str(self.runners),
            "ENABLE_CPU_PINNING": "NO",  # decoders share these cores
        }
        try:
            self._compiled = core.compile_model(with_normalisation(model, network), "CPU", options)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot compile '{model.network_path}' ({_first_line(error)}): export the model again"
            ) from None
        self.chosen = (
            f"{self._precision(model.precision)}, {self.runners} streams of one core, batches of {self.preferred_batch}"
        )

    def _precision(self, wanted: str) -> str:
        """The precision that is computed with, by OpenVINO's own account."""
        used = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
        if wanted == "int8":
            return f"int8, {names.get(used, used)} for the rest"
        if used == HINTS[wanted]:
            return wanted
        return f"{names.get(used, used)} ({wanted} was asked for, which this CPU lacks)"

    def open_runner(self) -> Runner:
        return _OpenVinoRunner(self._compiled.create_infer_request())


class _OpenVinoRunner(Runner):
    def __init__(self, request: Any) -> None:
        self._request = request

    def infer(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self._request.set_input_tensor(ov.Tensor(clips, shared_memory=True))
        self._request.infer()
        logits: npt.NDArray[np.float32] = self._request.get_output_tensor().data.copy()
        return logits


def read_network(core: Any, model: ModelFolder) -> Any:
    """The network of a model folder, as OpenVINO has it.

    Raises:
        ModelError: OpenVINO cannot read it.
    """
    try:
        return core.read_model(model.network_path)
    except (RuntimeError, UnicodeDecodeError) as error:  # the second where its sentence quotes a path that is no UTF-8
        remedy = "export the model again"
        if model.target != ANY_TARGET:
            remedy = "compile the model again, with this version of OpenVINO"
        raise ModelError(f"OpenVINO cannot read '{model.network_path}' ({_first_line(error)}): {remedy}") from None


def check_files(model: ModelFolder) -> None:
    """Compare what lies beside a compiled network, its weights, with what ``model.json`` says of it.

    OpenVINO takes weights by their place in that file: with another file of the same size it would answer nonsense.

    Raises:
        ModelError: a file is missing or is not the one that was compiled.
    """
    for name, sha256 in model.compiled.get("files", {}).items():
        path = model.path / os.path.basename(name)  # noqa: PTH119  (a name in this folder, whatever was written)
        if not path.is_file():
            raise ModelError(f"'{model.path}' lacks '{name}', the weights of its network: compile the model again")
        if file_sha256(path) != sha256:
            raise ModelError(f"'{path}' is not the file that was compiled with its network: compile the model again")


def check_network(model: ModelFolder, network: Any) -> None:
    """Compare a network's input and output with what ``model.json`` says of them.

    Raises:
        ModelError: they differ.
    """
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise ModelError(
            f"'{model.network_path}' has {len(network.inputs)} inputs and {len(network.outputs)} outputs, "
            "one of each is needed"
        )
    frames, height, width, channels = model.clip_shape
    wanted = (channels, frames, height, width) if model.layout == "NCDHW" else model.clip_shape
    got = network.input(0).partial_shape
    if not got.compatible(ov.PartialShape([-1, *wanted])):
        raise ModelError(f"'{model.network_path}' takes {got}, but its model.json describes clips of {list(wanted)}")
    scores = network.output(0).partial_shape
    if not scores.compatible(ov.PartialShape([-1, len(model.labels)])):
        raise ModelError(f"'{model.network_path}' gives {scores}, but its model.json lists {len(model.labels)} labels")


def with_normalisation(model: ModelFolder, network: Any) -> Any:
    """The network that takes uint8 clips ``[N, T, H, W, C]`` in place of normalised ones."""
    steps = ov.preprocess.PrePostProcessor(network)
    clips = steps.input(0)
    clips.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NDHWC"))
    clips.model().set_layout(ov.Layout(model.layout))
    mean = [255 * value for value in model.mean]
    std = [255 * value for value in model.std]
    clips.preprocess().convert_element_type(ov.Type.f32).mean(mean).scale(std)
    return steps.build()


def _first_line(error: Exception) -> str:
    said = str(error)
    if isinstance(error, UnicodeDecodeError):  # pybind11's, of what OpenVINO said
        said = error.object.decode(errors="backslashreplace")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
