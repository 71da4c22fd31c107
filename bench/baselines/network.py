"""A model folder's network in OpenVINO, for the baselines that feed it."""

from __future__ import annotations

from typing import Any

from clipmux.engine.backends import on_cpu, openvino
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ANY_TARGET, ModelFolder
from clipmux.engine.without_telemetry import ov

BATCH = 8
"""Clips in one call. OpenVINO on a CPU gains nothing from more."""


def check_target(model: ModelFolder, baseline: str, device: str = "cpu") -> None:
    """See whether what a baseline feeds, OpenVINO on CPUs and torch on GPUs, runs this model folder.

    Raises:
        UsageError: it does not.
    """
    backend, fed = ("openvino", "OpenVINO") if on_cpu(device) else ("torch", "torch")
    if model.target not in (ANY_TARGET, backend):
        raise UsageError(
            f"the baseline '{baseline}' feeds {fed}, but '{model.path}' was compiled for {model.target}: "
            "leave it out of --baselines"
        )


def compile_network(model: ModelFolder, *, hint: str, threads: int) -> Any:
    """A compiled network that takes uint8 clips ``[N, T, H, W, C]`` at the folder's own precision.

    Args:
        model: for OpenVINO, or any target.
        hint: ``THROUGHPUT`` for several requests at the same time, ``LATENCY`` for one.
        threads: cores that it may use.
    """
    core = ov.Core()
    openvino.check_files(model)
    network = openvino.read_network(core, model)
    openvino.check_network(model, network)
    options = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_PRECISION_HINT": openvino.HINTS[model.precision],
        "INFERENCE_NUM_THREADS": str(threads),
        "ENABLE_CPU_PINNING": "NO",  # whoever decodes shares these cores
    }
    return core.compile_model(openvino.with_normalisation(model, network), "CPU", options)
