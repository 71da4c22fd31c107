"""For torch: the network as it is, with the precision that its weights get on the device."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipmux.engine.model import ModelFolder

from .calibration import CalibrationSet
from .compile import check_options, version_of
from .export import require_torch


def compile_for(
    model: ModelFolder,
    staging: Path,
    *,
    precision: str,
    calibration: CalibrationSet | None,  # noqa: ARG001  (no precision of torch's looks at clips)
    options: Mapping[str, Any],
) -> ModelFolder:
    """Write the network for torch into ``staging``; the backend is opened once, to see that it knows every operator.

    Raises:
        UsageError: an option was given (there are none), or torch is not installed.
        ModelError: the network has an operator that the backend does not know.
    """
    check_options("torch", options, ())
    require_torch()
    from clipmux.engine.backends.torch import TorchBackend

    shutil.copyfile(model.network_path, staging / model.network)
    built = dataclasses.replace(
        model,
        path=staging,
        target="torch",
        precision=precision,
        provenance={"compiled_with": {name: version_of(name) for name in ("torch", "onnx")}},
    )
    TorchBackend(built, device="cpu", max_batch=1).close()
    return built
