"""For OpenVINO: half precisions as a hint for the network as it is, int8 by NNCF's post-training quantisation."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipmux.engine.backends.openvino import check_network, read_network
from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ModelFolder, file_sha256
from clipmux.engine.without_telemetry import ov  # before nncf, which would load the telemetry too

from .calibration import CalibrationSet, normalised
from .compile import check_options, version_of

PRESETS = ("performance", "mixed")
"""Activations around zero or, ``mixed``, with a zero point of their own: better for networks without ReLU, slower."""

NETWORK, WEIGHTS = "model.xml", "model.bin"


def compile_for(
    model: ModelFolder,
    staging: Path,
    *,
    precision: str,
    calibration: CalibrationSet | None,
    options: Mapping[str, Any],
) -> ModelFolder:
    """Write the network for OpenVINO into ``staging``.

    Args:
        options: ``preset``, one of ``PRESETS`` (int8 only).

    Raises:
        UsageError: an option is unknown, or int8 is asked for without nncf.
        ModelError: OpenVINO cannot read the network, or NNCF cannot quantise it.
    """
    check_options("openvino", options, ("preset",))
    preset = options.get("preset", PRESETS[0])
    if preset not in PRESETS:
        raise UsageError(f"preset is {preset!r}: choose one of {', '.join(PRESETS)}")
    if precision == "int8" and importlib.util.find_spec("nncf") is None:
        raise UsageError("int8 for OpenVINO needs nncf: pip install 'clipmux[quantize]'")
    network = read_network(ov.Core(), model)
    check_network(model, network)
    if calibration is None:  # compile_model gives clips to quantised precisions only, and always
        shutil.copyfile(model.network_path, staging / model.network)
        return dataclasses.replace(
            model, path=staging, provenance={"compiled_with": {"openvino": version_of("openvino")}}
        )
    quantised = _quantise(network, model, calibration, preset)
    sha256 = _save(quantised, staging)
    return dataclasses.replace(
        model,
        path=staging,
        network=NETWORK,
        compiled={"preset": preset, "files": {WEIGHTS: sha256}},
        provenance={"compiled_with": {name: version_of(name) for name in ("openvino", "nncf")}},
    )


def _quantise(network: Any, model: ModelFolder, calibration: CalibrationSet, preset: str) -> Any:
    with _nncf() as nncf:
        clips = nncf.Dataset(calibration.clips, lambda clip: normalised(clip[None], model))
        try:
            return nncf.quantize(
                network,
                clips,
                preset=nncf.QuantizationPreset(preset),
                subset_size=len(calibration.clips),
            )
        except (RuntimeError, ValueError, nncf.ValidationError) as error:
            first_line = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(
                f"nncf cannot quantise '{model.network_path}' ({first_line[:200]}): use float32 or a half precision"
            ) from None


def _save(network: Any, staging: Path) -> str:
    """Write the network and its weights; returns the weights' SHA-256.

    The weights' hash goes into the network's file, so that the hash of that one file stands for both.
    """
    ov.save_model(network, str(staging / NETWORK), compress_to_fp16=False)
    sha256 = file_sha256(staging / WEIGHTS)
    network.set_rt_info(sha256, ["clipmux", "weights_sha256"])
    ov.save_model(network, str(staging / NETWORK), compress_to_fp16=False)
    return sha256


@contextlib.contextmanager
def _nncf() -> Iterator[Any]:
    """The package, without its log, progress bars and warnings."""
    log = logging.getLogger("nncf")
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        nncf = importlib.import_module("nncf")  # at its first import it sets the level of its log
        before = log.level
        log.setLevel(logging.CRITICAL)
        try:
            yield nncf
        finally:
            log.setLevel(before)
