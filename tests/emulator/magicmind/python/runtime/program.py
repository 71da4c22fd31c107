"""A built model: a graph, its numerics, and how its inputs and outputs are declared.

-1 for axes that vary, ``dim_range`` enforced, UINT8 after ``insert_bn_before_firstnode`` with var = std², and inputs
declared in the layout *after* conversion are [V] or [I, strong]. The file format is the emulator's own: a zip of JSON
and ONNX.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from ..cc._pywrap_runtime.enums import DataType
from ..common.types import get_numpy_dtype_by_datatype
from .graph import Graph
from .numerics import Numerics, Range

FORMAT = "magicmind emulator 1"

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


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
        for axis, (length, declared) in enumerate(zip(shape, self.dims, strict=True)):
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

    def enter(self, array: Array) -> Tensor:
        """What the graph gets of an array: in its layout, normalised, float unless it is of whole numbers by nature."""
        x = torch.from_numpy(np.ascontiguousarray(array.transpose(self.inward(range(array.ndim)))))
        if self.mean is not None and self.var is not None:
            along = (1, -1, *[1] * (x.dim() - 2))
            return (x.float() - torch.tensor(self.mean).reshape(along)) / torch.tensor(self.var).sqrt().reshape(along)
        return x

    def leave(self, x: Tensor) -> Array:
        """An output as an array of the declared layout and type."""
        array = x.numpy().transpose(self.layout) if self.layout is not None else x.numpy()
        with np.errstate(all="ignore"):
            return np.array(array, dtype=self.dtype, order="C")


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


class Executable:
    """A program made ready to run; it may run on several threads at once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._graph = Graph(onnx.load_from_string(program.network))
        self._numerics = Numerics.of(
            program.precision,
            granularity=program.granularity,
            algorithm=program.algorithm,
            ranges=program.ranges,
        )
        self._weights = self._graph.weights(self._numerics)
        self._elements = [
            onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in self._graph.inputs
        ]
        self._shapes: dict[tuple[Shape, ...], list[Shape]] = {}
        self._lock = threading.Lock()

    def shapes(self, shapes: tuple[Shape, ...]) -> list[Shape]:
        """Declared shapes of the outputs for those of the inputs.

        Raises:
            Exception: torch's, where they do not fit the graph.
        """
        with self._lock:
            if shapes not in self._shapes:
                inner = [port.inward(shape) for port, shape in zip(self.program.inputs, shapes, strict=True)]
                found = output_shapes(self._graph, inner)
                self._shapes[shapes] = [p.outward(s) for p, s in zip(self.program.outputs, found, strict=True)]
            return self._shapes[shapes]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Outputs for inputs, both as declared. Torch releases the interpreter's lock meanwhile."""
        with torch.inference_mode():
            inputs = [
                _as_element(port.enter(array), element)
                for port, array, element in zip(self.program.inputs, arrays, self._elements, strict=True)
            ]
            outputs = self._graph.run(inputs, self._numerics, self._weights)
            return [port.leave(x) for port, x in zip(self.program.outputs, outputs, strict=True)]


def _as_element(x: Tensor, element: np.dtype[Any]) -> Tensor:
    """An input in the type that the graph computes with; half precision is emulated in float32."""
    kind = np.dtype(np.float32) if element == np.float16 else element
    return x.to(torch.from_numpy(np.zeros(0, kind)).dtype)


def output_shapes(graph: Graph, shapes: Sequence[Sequence[int]]) -> list[Shape]:
    """Shapes of a graph's outputs for those of its inputs, without computing them.

    Raises:
        Exception: torch's, where they do not fit the graph.
    """
    elements = [onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in graph.inputs]
    with torch.inference_mode():
        inputs = [
            _as_element(torch.empty(0), element).to("meta").new_empty(list(shape))
            for shape, element in zip(shapes, elements, strict=True)
        ]
        return [tuple(x.shape) for x in graph.run(inputs, Numerics(), {})]
