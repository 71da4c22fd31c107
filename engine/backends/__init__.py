"""Devices behind one protocol (base.py); ``choose`` and ``open_backend`` are the only places that know them by name."""

from __future__ import annotations

from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder

from .base import Backend, Runner

__all__ = ["NAMES", "Backend", "Runner", "choose", "open_backend"]

NAMES = ("auto", "openvino", "null")


def choose(backend: str, device: str) -> str:
    """The name of the backend to use for ``device``.

    Raises:
        UsageError: there is no such backend or device.
    """
    if backend not in NAMES:
        raise UsageError(f"there is no backend '{backend}': choose one of {', '.join(NAMES)}")
    if backend == "null":
        return backend
    if device != "cpu":
        raise UsageError(f"there is no backend for the device '{device}': this version runs on --device cpu")
    return "openvino"


def open_backend(
    name: str, model: ModelFolder, *, device: str, max_batch: int, null_delay_ms: tuple[float, float]
) -> Backend:
    """Open ``model`` on a device, with a backend that ``choose`` named.

    Raises:
        ModelError: the model does not fit the backend, or itself.
    """
    if name == "null":
        from .null import NullBackend

        return NullBackend(model, max_batch=max_batch, delay_ms=null_delay_ms)
    from .openvino import OpenVinoBackend

    return OpenVinoBackend(model, device=device, max_batch=max_batch)
