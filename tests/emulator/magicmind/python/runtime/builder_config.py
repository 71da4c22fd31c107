"""``BuilderConfig`` [V]: JSON texts that are merged deeply, later ones winning [I, strong].

Keys and values are the public ones; others are refused [–], and then nothing of the text is taken.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cc._pywrap_runtime import Status
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.status import failure
from . import machine

PRECISIONS = (
    "force_float32",
    "force_float16",
    "qint8_mixed_float16",
    "qint8_mixed_float32",
    "qint16_mixed_float16",
    "qint16_mixed_float32",
)
LAYOUTS = ("NCT", "NTC", "NCHW", "NHWC", "NCDHW", "NDHWC")

Check = Callable[[Any], bool]


def _one_of(*values: str) -> Check:
    return lambda value: isinstance(value, str) and value in values


def _is(kind: type) -> Check:
    return lambda value: isinstance(value, kind)


def _fields(**checks: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(k in checks and checks[k](v) for k, v in value.items())


def _per_tensor(check: Check) -> Check:
    """A value for each input or output, by its number as text."""
    return lambda value: isinstance(value, dict) and all(k.isdecimal() and check(v) for k, v in value.items())


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_number, value))


def _lengths(value: Any) -> bool:
    return _numbers(value) and all(isinstance(length, int) and length > 0 for length in value)


def _range(value: Any) -> bool:
    if not _fields(min=_lengths, max=_lengths)(value) or len(value) != 2:
        return False
    low, high = value["min"], value["max"]
    return len(low) == len(high) and all(a <= b for a, b in zip(low, high, strict=True))


def _layout(value: Any) -> bool:
    known = _one_of(*LAYOUTS)
    if not _fields(src=known, dst=known)(value) or len(value) != 2:
        return False
    return value["src"] != value["dst"] and sorted(value["src"]) == sorted(value["dst"])


def _normalisation(value: Any) -> bool:
    if not _fields(mean=_numbers, var=_numbers)(value) or len(value) != 2:
        return False
    return len(value["mean"]) == len(value["var"]) and min(value["var"]) > 0


def _arch(value: Any) -> bool:
    if isinstance(value, str):
        return value in machine.ARCHS
    return isinstance(value, dict) and bool(value) and all(k in machine.ARCHS and _lengths(v) for k, v in value.items())


def _custom_ranges(value: Any) -> bool:
    each = _fields(min=_numbers, max=_numbers)
    return isinstance(value, dict) and all(each(v) and len(v) == 2 for v in value.values())


CHECKS: dict[str, Check] = {
    "archs": lambda value: isinstance(value, list) and bool(value) and all(map(_arch, value)),
    "precision_config": _fields(
        precision_mode=_one_of(*PRECISIONS),
        weight_quant_granularity=_one_of("per_tensor", "per_axis"),
        activation_quant_algo=_one_of("symmetric", "asymmetric"),
    ),
    "graph_shape_mutable": _is(bool),
    "dim_range": _per_tensor(_range),
    "opt_config": _fields(type64to32_conversion=_is(bool), conv_scale_fold=_is(bool)),
    "convert_input_layout": _per_tensor(_layout),
    "convert_output_layout": _per_tensor(_layout),
    "insert_bn_before_firstnode": _per_tensor(_normalisation),
    "computation_preference": _one_of("auto", "fast", "high_precision"),
    "compute_determinism": _is(bool),
    "custom_ranges": _custom_ranges,
    "cross_compile_toolchain_path": _is(str),
    "debug_config": _is(dict),
}


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


class BuilderConfig:
    """How to build a model."""

    def __init__(self) -> None:
        self._content: dict[str, Any] = {}
        self._mlu_archs: list[str] = []

    @property
    def mlu_archs(self) -> list[str]:
        return list(self._mlu_archs)

    @mlu_archs.setter
    def mlu_archs(self, archs: list[str]) -> None:
        need("BuilderConfig.mlu_archs", archs, list, tuple)
        for arch in archs:
            need("BuilderConfig.mlu_archs", arch, str)
        self._mlu_archs = list(archs)

    def parse_from_string(self, json_string: str) -> Status:
        need("parse_from_string", json_string, str)
        try:
            new = json.loads(json_string)
        except ValueError as error:
            return failure(f"not JSON ({error})")
        if not isinstance(new, dict):
            return failure(f"{json_string!r} is no JSON object")
        for key, value in new.items():
            if key not in CHECKS:
                return failure(f"unknown key '{key}'")
            if not CHECKS[key](value):
                return failure(f"'{key}' cannot be {json.dumps(value)}")
        _merge(self._content, new)
        return Status.OK()

    def parse_from_file(self, path: str) -> Status:
        need("parse_from_file", path, str)
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return failure(f"cannot read '{path}' ({error})")
        return self.parse_from_string(text)

    def _get(self, key: str, default: Any = None) -> Any:
        """What a key says; inner keys after a dot (``precision_config.precision_mode``)."""
        value: Any = self._content
        for part in key.split("."):
            if part not in value:
                return default
            value = value[part]
        return copy.deepcopy(value)

    def _archs(self) -> dict[str, list[int]]:
        """Clusters by architecture; an empty list is any number of them, no entry at all any architecture."""
        archs: dict[str, list[int]] = {machine.same_arch(name): [] for name in self._mlu_archs}
        for entry in self._get("archs", []):
            for name, clusters in (entry if isinstance(entry, dict) else {entry: []}).items():
                archs[machine.same_arch(name)] = clusters
        return archs
