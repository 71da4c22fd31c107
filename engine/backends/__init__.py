"""Devices behind one protocol (base.py); ``choose`` and ``open_backend`` are the only places that know them by name."""

from __future__ import annotations

import re

from clipmux.engine.errors import UsageError
from clipmux.engine.model import ANY_TARGET, ModelFolder

from .base import BATCH_ON_CPU, Backend, Runner
from .cores import CPU, cores_of, keep_to_cores, on_cpu

__all__ = [
    "NAMES",
    "Backend",
    "Runner",
    "choose",
    "cores_of",
    "keep_to_cores",
    "most_in_batch",
    "on_cpu",
    "open_backend",
]

NAMES = ("auto", "openvino", "magicmind", "torch", "null")

DEVICES = {
    "openvino": CPU,
    "magicmind": r"mlu:\d+",
    "torch": rf"{CPU}|cuda:\d+|mlu:\d+",
    "null": r".*",
}
"""The devices of each backend, as patterns; ``auto`` takes the first backend that has the device."""


def choose(backend: str, device: str, target: str = ANY_TARGET) -> str:
    """The name of the backend to use for ``device`` and a model compiled for ``target``.

    Raises:
        UsageError: there is no such backend or device, or the three contradict each other.
    """
    if backend not in NAMES:
        raise UsageError(f"there is no backend '{backend}': choose one of {', '.join(NAMES)}")
    if backend == "null":
        return backend
    able = [name for name, devices in DEVICES.items() if name != "null" and re.fullmatch(devices, device)]
    if not able:
        raise UsageError(
            f"there is no device '{device}': choose cpu, mlu:0 or cuda:0 (or another number), or cores like cpu:0-7"
        )
    wanted = target if backend == "auto" and target != ANY_TARGET else backend
    if wanted != "auto" and wanted not in able:
        why = "" if backend != "auto" else ", which this model was compiled for,"
        raise UsageError(f"the {wanted} backend{why} has no device '{device}': it has {_devices(wanted)}")
    name = able[0] if wanted == "auto" else wanted
    if target not in (ANY_TARGET, name):
        raise UsageError(f"the model was compiled for {target}, not for the {name} backend: use --backend {target}")
    return name


def most_in_batch(name: str, device: str, max_batch: int) -> int:
    """Clips that a backend takes at a time at most, as far as that is known before it is opened."""
    return min(BATCH_ON_CPU, max_batch) if on_cpu(device) and name != "null" else max_batch


def open_backend(
    name: str, model: ModelFolder, *, device: str, max_batch: int, null_delay_ms: tuple[float, float]
) -> Backend:
    """Open ``model`` on a device, with a backend that ``choose`` named.

    Raises:
        UsageError: the backend or the device is not on this machine.
        ModelError: the model does not fit the backend, or itself.
    """
    if name == "null":
        from .null import NullBackend

        return NullBackend(model, max_batch=max_batch, delay_ms=null_delay_ms)
    if name == "magicmind":
        from .magicmind import MagicMindBackend

        return MagicMindBackend(model, device=device, max_batch=max_batch)
    if name == "torch":
        from .torch import TorchBackend

        return TorchBackend(model, device=device, max_batch=max_batch)
    from .openvino import OpenVinoBackend

    return OpenVinoBackend(model, device=device, max_batch=max_batch)


def _devices(backend: str) -> str:
    return {"openvino": "cpu", "magicmind": "mlu:0 and so on", "torch": "cpu, cuda:0 and mlu:0 and so on"}[backend]
