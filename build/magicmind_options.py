"""What can be said about a MagicMind build, checked before anything starts, and the configuration that comes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipmux.engine.backends.magicmind import FORMS, MOST, input_shape
from clipmux.engine.documents import read_json
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder

from .compile import check_options, needs_calibration

ARCHS = ("mtp_220", "mtp_270", "mtp_290", "mtp_372", "tp_322", "mtp_322", "mtp_592")
"""Architectures that public programs name; ``mtp_322`` is another spelling of ``tp_322``."""

OPTIONS = (
    "arch",
    "cluster",
    "fixed_batch",
    "max_batch",
    "float_input",
    "weight_granularity",
    "activation_algorithm",
    "calibration_algorithm",
    "remote",
    "pytorch_pt",
    "config",
)

DECIDED = {
    "precision_config.precision_mode": "--precision",
    "graph_shape_mutable": "--fixed-batch",
    "dim_range": "--max-batch and --fixed-batch",
    "convert_input_layout": "--float-input",
    "insert_bn_before_firstnode": "--float-input",
}
"""What the backend has to know of a model, and so cannot be changed by a configuration file but by these options."""


@dataclass(frozen=True)
class MagicMindOptions:
    """How to build a model, checked.

    Args:
        precision: one of MagicMind's six.
        archs: architectures to build for.
        clusters: cluster counts to build for, on each of them; none for MagicMind's own choice.
        fixed_batch: clips in every call; None for 1 to ``max_batch``.
        max_batch: clips in one call at most.
        float_input: take float32 in the network's own layout, as the 3D-ResNet sample does, and not pixels.
        weight_granularity: ``per_tensor`` or ``per_axis``; the first if it is None, like the next two.
        activation_algorithm: ``symmetric`` or ``asymmetric``.
        calibration_algorithm: ``linear`` or ``eqnm``.
        remote: ``HOST:PORT`` of an MLU to calibrate on.
        pytorch_pt: a TorchScript file of the same network, to be parsed in the place of its ONNX file.
        config: keys of the build configuration that have the last word.
    """

    precision: str
    archs: tuple[str, ...] = ("mtp_372",)
    clusters: tuple[int, ...] = ()
    fixed_batch: int | None = None
    max_batch: int = MOST
    float_input: bool = False
    weight_granularity: str | None = None
    activation_algorithm: str | None = None
    calibration_algorithm: str | None = None
    remote: str | None = None
    pytorch_pt: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, precision: str, options: Mapping[str, Any]) -> MagicMindOptions:
        """From the names in ``OPTIONS``; one that is None counts as not given.

        Raises:
            UsageError: an option is unknown or out of range, two contradict each other, or a file cannot be read.
        """
        check_options("magicmind", options, OPTIONS)
        given = {name: value for name, value in options.items() if value is not None}
        files = {name: Path(given.pop(name)) for name in ("pytorch_pt", "config") if name in given}
        script = files.get("pytorch_pt")
        if script is not None and not script.is_file():
            raise UsageError(f"there is no file '{script}': give a TorchScript file with --pytorch-pt")
        made = cls(
            precision,
            archs=_several(given.pop("arch", ())) or cls.archs,
            clusters=_several(given.pop("cluster", ())),
            pytorch_pt=script,
            config=_read(files["config"]) if "config" in files else {},
            **given,
        )
        made._check()
        return made

    def _check(self) -> None:
        _one_of("--arch", self.archs, ARCHS)
        _one_of("--weight-granularity", (self.weight_granularity,), ("per_tensor", "per_axis"))
        _one_of("--activation-algorithm", (self.activation_algorithm,), ("symmetric", "asymmetric"))
        _one_of("--calibration-algorithm", (self.calibration_algorithm,), ("linear", "eqnm"))
        for name, number, most in (
            ("--fixed-batch", self.fixed_batch, MOST),
            ("--max-batch", self.max_batch, MOST),
            *(("--cluster", count, 1024) for count in self.clusters),
        ):
            if number is not None and not (type(number) is int and 1 <= number <= most):
                raise UsageError(f"{name} is {number!r}: it is 1 to {most}")
        if self.fixed_batch is not None and self.max_batch not in (MOST, self.fixed_batch):
            raise UsageError(f"--fixed-batch {self.fixed_batch} and --max-batch {self.max_batch}: give one of them")
        if not needs_calibration(self.precision):
            for name in ("weight_granularity", "activation_algorithm", "calibration_algorithm", "remote"):
                if getattr(self, name) is not None:
                    option = name.replace("_", "-")
                    raise UsageError(f"--{option} is for quantised precisions: leave it out with {self.precision}")
        if self.remote is not None:
            address = re.fullmatch(r"[^\s:]+:(\d{1,5})|\[[0-9a-fA-F:]+\]:(\d{1,5})", self.remote)
            if address is None or not 0 < int(address[1] or address[2]) < 65536:
                raise UsageError(f"--remote is '{self.remote}': write HOST:PORT, with a port of 1 to 65535")
        merged = self._merged({"precision_config": self._quantisation()})["precision_config"]
        if self.calibration_algorithm == "eqnm" and merged.get("activation_quant_algo") == "asymmetric":
            raise UsageError(
                "the calibration algorithm eqnm needs symmetric quantisation: leave out --activation-algorithm "
                "asymmetric, or take --calibration-algorithm linear"
            )

    @property
    def batch(self) -> int:
        """What the network's batch is set to before it is built."""
        return self.fixed_batch or 1

    @property
    def most(self) -> int:
        """Clips in one call at most."""
        return self.fixed_batch or self.max_batch

    def form(self, model: ModelFolder) -> str:
        """The input that the built network has: one of the backend's ``FORMS``."""
        return f"float32 {model.layout}" if self.float_input else FORMS[0]

    def settings(self, model: ModelFolder) -> dict[str, Any]:
        """The whole build configuration for a model.

        Normalisation goes before the first node, of pixels up to 255, as means and variances.

        Raises:
            UsageError: the configuration file changes what an option decides, or pixels cannot go into such a network.
        """
        if not self.float_input and model.layout != "NCDHW":
            raise UsageError(
                f"'{model.network_path}' takes {model.layout}, before which MagicMind cannot normalise: "
                "say --float-input"
            )
        shape = input_shape(model, model.layout)  # before conversion, also where the layout is converted
        ours: dict[str, Any] = {
            "archs": [{arch: list(self.clusters)} for arch in self.archs] if self.clusters else list(self.archs),
            "precision_config": {"precision_mode": self.precision, **self._quantisation()},
            "graph_shape_mutable": self.fixed_batch is None,
            "computation_preference": "auto",
            "opt_config": {"type64to32_conversion": True, "conv_scale_fold": True},
        }
        if self.fixed_batch is None:
            ours["dim_range"] = {"0": {"min": [1, *shape], "max": [self.max_batch, *shape]}}
        if not self.float_input:
            ours["convert_input_layout"] = {"0": {"src": "NCDHW", "dst": "NDHWC"}}
            ours["insert_bn_before_firstnode"] = {
                "0": {"mean": [255 * mean for mean in model.mean], "var": [(255 * std) ** 2 for std in model.std]}
            }
        merged = self._merged(ours)
        for key, option in DECIDED.items():
            if _at(merged, key) != _at(ours, key):
                raise UsageError(f"the configuration file has {key} {_at(merged, key)!r}: {option} decides it")
        return merged

    def _quantisation(self) -> dict[str, str]:
        if not needs_calibration(self.precision):
            return {}
        return {
            "weight_quant_granularity": self.weight_granularity or "per_tensor",
            "activation_quant_algo": self.activation_algorithm or "symmetric",
        }

    def _merged(self, settings: dict[str, Any]) -> dict[str, Any]:
        return _merge(settings, self.config)


def _merge(settings: dict[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """Objects key by key, anything else as a whole: ``{"a": {"b": 1}}`` and ``{"a": {"c": 2}}`` give both."""
    merged = dict(settings)
    for key, value in last.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[key] = _merge(before, value) if isinstance(before, dict) and both else value
    return merged


def _at(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _several(value: Any) -> tuple[Any, ...]:
    """One value or several; each of them once."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return tuple(dict.fromkeys(values))


def _one_of(option: str, values: Sequence[str | None], known: tuple[str, ...]) -> None:
    for value in values:
        if value is not None and value not in known:
            raise UsageError(f"{option} is '{value}': it is one of {', '.join(known)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--config '{path}' is not readable as JSON ({error}): give a build configuration") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config '{path}' is not a JSON object: give keys of MagicMind's build configuration")
    precision = content.get("precision_config", {})
    if not isinstance(precision, dict):
        raise UsageError(f"--config '{path}' has precision_config {precision!r}: an object belongs there")
    return content
