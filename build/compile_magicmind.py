"""Compile a model folder for MLUs: MagicMind's parser, calibrator and builder, in the order of the 3D-ResNet sample.

The network takes uint8 ``[N, T, H, W, C]`` and normalises it on the device, unless float input is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.backends.magicmind import Built, Normalisation, check_interface, input_shape
from clipmux.engine.backends.magicmind_api import Calibration, MagicMind, saying
from clipmux.engine.errors import ClipmuxError, ModelError, UsageError
from clipmux.engine.model import ModelFolder, file_sha256

from . import onnx_edits
from .calibration import CalibrationSet
from .magicmind_options import MagicMindOptions

NETWORK = "model.magicmind"


def check(model: ModelFolder, *, precision: str, options: Mapping[str, Any]) -> None:
    """Refuse at once what ``compile_for`` would refuse later, before clips are drawn to calibrate with.

    Raises:
        UsageError: MagicMind is not installed, or an option is wrong or contradicts another.
    """
    MagicMindOptions.of(precision, options).settings(model)
    MagicMind()


def compile_for(
    model: ModelFolder,
    staging: Path,
    *,
    precision: str,
    calibration: CalibrationSet | None,
    options: Mapping[str, Any],
) -> ModelFolder:
    """Write the built network into ``staging`` and return what its ``model.json`` is to say.

    Args:
        model: the folder to compile, with an ONNX file.
        staging: where to.
        precision: one of MagicMind's six.
        calibration: real clips, for a quantised precision.
        options: by the names in ``magicmind_options.OPTIONS``.

    Raises:
        UsageError: MagicMind is not installed, or an option is wrong or contradicts another.
        ModelError: MagicMind does not take the network, or what it built is not what was asked for.
        ClipmuxError: calibration failed, or the file could not be written.
    """
    chosen = MagicMindOptions.of(precision, options)
    settings = chosen.settings(model)
    magicmind = MagicMind()
    network = _parse(magicmind, model, chosen, staging)
    with saying(UsageError, "MagicMind refuses the build configuration", "look at --arch, --cluster and --config"):
        config = magicmind.config(settings)
    if calibration is not None:
        _calibrate(magicmind, network, config, model, chosen, calibration)
    with saying(
        ModelError,
        f"MagicMind cannot build '{model.name}'",
        "look at the messages above; where they speak of its first node, say --float-input",
    ):
        built = magicmind.build(network, config)
        inputs, outputs = magicmind.ports(built)
    compiled = dataclasses.replace(
        model,
        path=staging,
        network=NETWORK,
        target="magicmind",
        precision=precision,
        compiled={
            "max_batch": chosen.most,
            "fixed_batch": chosen.fixed_batch,
            "input": chosen.form(model),
            "archs": settings["archs"],
            "config": settings,
        },
        provenance={**model.provenance, **_provenance(magicmind, chosen)},
    )
    check_interface(compiled, Built.of(compiled), inputs, outputs)
    with saying(ClipmuxError, f"cannot write the built '{model.name}'", "see whether the disk is full"):
        magicmind.save(built, compiled.network_path)
    return compiled


def _parse(magicmind: MagicMind, model: ModelFolder, chosen: MagicMindOptions, staging: Path) -> Any:
    """The network, with its shape set."""
    path = chosen.pytorch_pt or model.network_path
    remedy = "give TorchScript of it with --pytorch-pt" if chosen.pytorch_pt is None else "leave out --pytorch-pt"
    if chosen.pytorch_pt is None and importlib.util.find_spec("onnx") is None:
        remedy = f"install onnx, so that 3-D pools in it can be rewritten (pip install 'clipmux[torch]'), or {remedy}"
    with saying(ModelError, f"MagicMind cannot read '{path}'", remedy), _for_parser(path, model, staging) as file:
        network = magicmind.parse_script(file) if chosen.pytorch_pt else magicmind.parse_onnx(file)
        if (ends := magicmind.ends(network)) != (1, 1):
            raise ModelError(f"'{path}' has {ends[0]} inputs and {ends[1]} outputs: one of each is needed")
        magicmind.set_shape(network, [chosen.batch, *input_shape(model, model.layout)])
    return network


@contextlib.contextmanager
def _for_parser(path: Path, model: ModelFolder, staging: Path) -> Iterator[Path]:
    """The file, or in its place an equal one without 3-D global pools, which the parser is not known to take [I].

    Networks from ``build export`` have none, so onnx is not needed for them.
    """
    if path != model.network_path or model.layout != "NCDHW" or importlib.util.find_spec("onnx") is None:
        yield path
        return
    network = onnx_edits.load(path, "compiling for MagicMind")
    if not onnx_edits.flatten_global_pools(network, input_shape(model, model.layout)):
        yield path
        return
    edited = staging / "flattened.onnx"
    onnx_edits.save(network, edited)
    try:
        yield edited
    finally:
        edited.unlink()


def _calibrate(
    magicmind: MagicMind,
    network: Any,
    config: Any,
    model: ModelFolder,
    chosen: MagicMindOptions,
    calibration: CalibrationSet,
) -> None:
    """Show the clips to MagicMind as float32, normalised, in the network's own layout [V]: pixels are not taken."""
    clips, size = calibration.clips, chosen.batch
    normalise = Normalisation(model, model.layout)
    shape = (size, *input_shape(model, model.layout))

    def batch(number: int) -> npt.NDArray[np.float32]:
        samples = np.empty(shape, np.float32)
        places = np.arange(number * size, (number + 1) * size) % len(clips)  # the last batch is filled from the first
        normalise(clips[places], samples)
        return samples

    with saying(ClipmuxError, "calibration failed", "see whether an MLU is free, or name one with --remote HOST:PORT"):
        magicmind.calibrate(
            network,
            config,
            Calibration(
                shape=shape,
                batches=math.ceil(len(clips) / size),
                batch=batch,
                algorithm=chosen.calibration_algorithm or "linear",
                remote=chosen.remote,
            ),
        )


def _provenance(magicmind: MagicMind, chosen: MagicMindOptions) -> dict[str, Any]:
    said: dict[str, Any] = {"compiled_with": {"magicmind": magicmind.version()}}
    if chosen.pytorch_pt is not None:
        said["pytorch_pt"] = chosen.pytorch_pt.name
        said["pytorch_pt_sha256"] = file_sha256(chosen.pytorch_pt)
    if chosen.calibration_algorithm is not None:
        said["calibration_algorithm"] = chosen.calibration_algorithm
    return said
