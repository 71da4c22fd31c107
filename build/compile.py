"""From a model folder that any backend reads to one for a single target, at a precision of its own.

What all targets have in common is here; what only one knows is in the module that its name leads to. Nothing is left
behind when it fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, cast

from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ANY_TARGET, ModelFolder, file_sha256, read_model, write_model
from clipmux.engine.model import PRECISIONS as KNOWN_PRECISIONS

from .calibration import CalibrationSet
from .staging import check_free, new_content

PRECISIONS = {target: precisions for target, precisions in KNOWN_PRECISIONS.items() if target != ANY_TARGET}
"""The targets that a model can be compiled for, and the precisions of each, in its own words."""


class _Compiler(Protocol):
    """What a target's module has."""

    def compile_for(
        self,
        model: ModelFolder,
        staging: Path,
        *,
        precision: str,
        calibration: CalibrationSet | None,
        options: Mapping[str, Any],
    ) -> ModelFolder:
        """Write the compiled network into ``staging`` and return what its ``model.json`` is to say."""


def needs_calibration(precision: str) -> bool:
    """Whether a precision has ranges of activations to be measured on real clips."""
    return precision.startswith(("int", "qint"))


def compile_model(
    folder: Path,
    output: Path,
    *,
    target: str,
    precision: str,
    calibration: CalibrationSet | None = None,
    options: Mapping[str, Any] | None = None,
    force: bool = False,
) -> ModelFolder:
    """Compile a model folder for one target.

    Args:
        folder: a model folder as ``clipmux build export`` and ``clipmux build import`` make it.
        output: the folder to make.
        target: ``openvino``, ``torch`` or ``magicmind``.
        precision: one of ``PRECISIONS[target]``.
        calibration: real clips; a quantised precision needs them, the others do not look at them.
        options: what only the target understands.
        force: put the new model in the place of one that is there.

    Raises:
        UsageError: the target, the precision or an option is unknown, calibration is missing, a package that the
            target needs is not installed, or ``output`` is taken.
        ModelError: the folder cannot be compiled: it is compiled already, or the target cannot take its network.
    """
    check_precision(target, precision, calibrated=calibration is not None)
    model = read_model(folder)
    if model.target != ANY_TARGET:
        raise ModelError(
            f"'{folder}' is compiled for {model.target} already: give the folder that it was compiled from"
        )
    if output.resolve() == model.path.resolve():
        raise UsageError(f"'{output}' is the model to compile: name another folder for the compiled one")
    check_free(output, force=force)
    used = calibration if needs_calibration(precision) else None
    with new_content(output) as staging:
        compiler = cast(_Compiler, import_module(f".compile_{target}", __package__))
        built = compiler.compile_for(model, staging, precision=precision, calibration=used, options=options or {})
        write_model(
            dataclasses.replace(
                built,
                path=staging,
                target=target,
                precision=precision,
                provenance=_provenance(model, built, used),
            )
        )
    return read_model(output)


def check_precision(target: str, precision: str, *, calibrated: bool) -> None:
    """Refuse what cannot be compiled before any work is done; ``calibrated`` says that there are clips to measure on.

    Raises:
        UsageError: the target or its precision is unknown, or the precision needs calibration.
    """
    if target not in PRECISIONS:
        raise UsageError(f"there is no target '{target}': choose one of {', '.join(PRECISIONS)}")
    if precision not in PRECISIONS[target]:
        known = ", ".join(PRECISIONS[target])
        raise UsageError(f"the target {target} has no precision '{precision}': choose one of {known}")
    if needs_calibration(precision) and not calibrated:
        raise UsageError(
            f"the precision {precision} needs real videos to measure activations on: give some with --calibrate"
        )


def check_options(target: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse options that a target does not understand; for the targets' own modules.

    Raises:
        UsageError: there is one.
    """
    for name in options:
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"the target {target} has no option '{name}': {there}")


def version_of(package: str) -> str:
    """The installed version of a package, for the provenance; empty if it has none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _provenance(model: ModelFolder, built: ModelFolder, calibration: CalibrationSet | None) -> dict[str, Any]:
    """The source's own, what its module adds, and what holds for every target; no path of this machine."""
    tools = built.provenance.get("compiled_with", {})
    said: dict[str, Any] = {
        **model.provenance,
        **built.provenance,
        "compiled_from_sha256": file_sha256(model.network_path),
        "compiled_with": {"clipmux": version_of("clipmux"), **tools},
    }
    if calibration is not None:
        said["calibration"] = list(calibration.drawn)
        said["calibration_seed"] = calibration.seed
        if calibration.skipped:
            said["calibration_skipped"] = [name for name, _ in calibration.skipped]
    return said
