"""A built model: a graph, its numerics, and how its inputs and outputs are declared.

-1 for axes that vary, ``dim_range`` enforced, UINT8 after ``insert_bn_before_firstnode`` with var = std², and inputs
declared in the layout *after* conversion are [V] or [I, strong]. The file format is the emulator's own: a zip of JSON
and ONNX. What runs it is in executable.py: this file needs neither torch nor onnx.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Tuple  # noqa: UP035

import numpy as np
import numpy.typing as npt

from ..cc._pywrap_runtime.enums import DataType
from ..common.types import get_numpy_dtype_by_datatype

if TYPE_CHECKING:
    from .numerics import Range

FORMAT = "magicmind emulator 1"

Array = npt.NDArray[Any]
Shape = Tuple[int, ...]  # noqa: UP006  (what runs models works on Python 3.8, too)


class ProgramError(Exception):
    """A file that is no model."""


@dataclass(frozen=True)
class Port:
    """One input or output, as declared to programs.

    Args:
        name: of the tensor.
        data_type: of its elements.
        dims: its shape, -1 where it varies.
        low: shortest length of each axis, None where nothing bounds them.
        high: longest length of each axis.
        layout: for each axis of the declared tensor, that axis of the graph's own tensor.
        mean: per channel, subtracted from inputs.
        var: per channel; inputs are divided by its root.
    """

    name: str
    data_type: DataType
    dims: Shape
    low: Shape | None = None
    high: Shape | None = None
    layout: Shape | None = None
    mean: tuple[float, ...] | None = None
    var: tuple[float, ...] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(get_numpy_dtype_by_datatype(self.data_type))

    def refuse(self, shape: Shape) -> str | None:
        """Why a tensor of this shape cannot be used in a call, if it cannot."""
        if len(shape) != len(self.dims):
            return f"'{self.name}' has {len(self.dims)} axes, {list(shape)} has {len(shape)}"
        for axis, (length, declared) in enumerate(zip(shape, self.dims)):  # noqa: B905  (as many)
            if length < 1 or declared not in (-1, length):
                return f"'{self.name}' is {list(self.dims)}, not {list(shape)}"
            if self.low is not None and self.high is not None and not self.low[axis] <= length <= self.high[axis]:
                return f"'{self.name}' is {list(self.low)} to {list(self.high)}, not {list(shape)}"
        return None

    def inward(self, shape: Sequence[int]) -> list[int]:
        """A declared shape in the graph's layout."""
        if self.layout is None:
            return list(shape)
        return [shape[self.layout.index(axis)] for axis in range(len(shape))]

    def outward(self, shape: Sequence[int]) -> Shape:
        """A shape in the graph's layout as it is declared."""
        return tuple(shape) if self.layout is None else tuple(shape[axis] for axis in self.layout)


@dataclass(frozen=True)
class Program:
    """Everything that a model file holds.

    Args:
        name: given to ``build_model``.
        inputs: declared.
        outputs: declared.
        precision: a ``precision_mode``.
        granularity: of weights.
        algorithm: of activations.
        ranges: of activations that are quantised.
        archs: architectures it runs on, with their cluster counts; none at all for any.
        network: an ONNX file.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    precision: str
    granularity: str
    algorithm: str
    ranges: dict[str, Range]
    archs: dict[str, list[int]]
    network: bytes

    def write(self, path: str) -> None:
        """
        Raises:
            OSError: the file cannot be written.
        """
        manifest = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[:-1]}
        for ports in ("inputs", "outputs"):
            manifest[ports] = [{**vars(port), "data_type": port.data_type.name} for port in manifest[ports]]
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("manifest.json", json.dumps({"format": FORMAT, **manifest}))
            archive.writestr("network.onnx", self.network)

    @classmethod
    def read(cls, path: str) -> Program:
        """
        Raises:
            ProgramError: no model of this emulator.
            OSError: the file cannot be read.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                manifest = json.loads(archive.read("manifest.json"))
                network = archive.read("network.onnx")
            if manifest.pop("format") != FORMAT:
                raise ProgramError("a model of another version")
            for ports in ("inputs", "outputs"):
                manifest[ports] = tuple(_port(port) for port in manifest[ports])
            manifest["ranges"] = {name: (low, high) for name, (low, high) in manifest["ranges"].items()}
            return cls(network=network, **manifest)
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProgramError(f"no model ({error})") from None


def _port(content: dict[str, Any]) -> Port:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    return Port(**{**values, "data_type": DataType[content["data_type"]]})
