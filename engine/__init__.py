"""clipmux.engine: the contracts and the device side.

The Python face is ``Engine`` and what it yields::

    from clipmux.engine import Engine

    with Engine("model-folder") as engine:
        for prediction in engine.classify(["a.mp4", "b.mkv"]):
            print(prediction.video_id, prediction.label, prediction.score)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Engine
    from .errors import ClipmuxError, ModelError, UsageError, VideoError
    from .prediction import ClipPrediction, LabelScore, Prediction
    from .streams import StreamConfig

__all__ = [
    "ClipPrediction",
    "ClipmuxError",
    "Engine",
    "LabelScore",
    "ModelError",
    "Prediction",
    "StreamConfig",
    "UsageError",
    "VideoError",
]

_HOMES = {"api": ["Engine"], "prediction": ["ClipPrediction", "LabelScore", "Prediction"], "streams": ["StreamConfig"]}


def __getattr__(name: str) -> Any:
    """Import on first use, so that a child process or ``clipmux --help`` loads only what it needs."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    return getattr(import_module(f".{home}", __name__), name)
