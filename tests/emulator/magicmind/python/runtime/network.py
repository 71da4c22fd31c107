"""``Network``: what a parser read, with shapes and types that may be set before it is built [V]."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import torch

from ..cc._pywrap_runtime import ITensor
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.enums import DataType
from ..common.types import get_numpy_dtype_by_datatype
from .builder_config import BuilderConfig
from .graph import Graph, GraphError
from .numerics import Range
from .torchscript import Script

_ELEMENTS = {
    onnx.TensorProto.FLOAT: DataType.FLOAT32,
    onnx.TensorProto.FLOAT16: DataType.FLOAT16,
    onnx.TensorProto.DOUBLE: DataType.FLOAT64,
    onnx.TensorProto.INT8: DataType.INT8,
    onnx.TensorProto.INT16: DataType.INT16,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.BOOL: DataType.BOOL,
}


@dataclass
class Content:
    """What is in a network: a source that is or becomes an ONNX model, and what is said about it.

    ``ranges`` of tensors come from a calibrator.
    """

    source: onnx.ModelProto | Script
    inputs: list[ITensor]
    outputs: list[ITensor]
    ranges: dict[str, Range] = field(default_factory=dict)
    _converted: dict[str, onnx.ModelProto] = field(default_factory=dict)

    @classmethod
    def of_onnx(cls, model: onnx.ModelProto) -> Content:
        """
        Raises:
            GraphError: an opset or an operator that is not taken.
        """
        graph = Graph(model)
        return cls(model, [_tensor(value) for value in graph.inputs], [_tensor(value) for value in graph.outputs])

    @classmethod
    def of_script(cls, script: Script, dtypes: list[DataType]) -> Content:
        """
        Raises:
            GraphError: not one type for each input.
        """
        if len(dtypes) != len(script.inputs):
            raise GraphError(f"pytorch-input-dtypes has {len(dtypes)} types for {len(script.inputs)} inputs")
        inputs = [ITensor(name, [], kind, None) for name, kind in zip(script.inputs, dtypes, strict=True)]
        return cls(script, inputs, [ITensor(name, [], DataType.FLOAT32, None) for name in script.outputs])

    def shapes(self) -> list[list[int]]:
        return [tensor.get_dimension().GetDims() for tensor in self.inputs]

    def model(self, config: BuilderConfig) -> onnx.ModelProto:
        """The network as ONNX.

        Raises:
            GraphError: it needs a shape and has none, or cannot be converted for the one it has.
        """
        if isinstance(self.source, onnx.ModelProto):
            return self.source
        shapes = [[max(length, 1) for length in shape] for shape in self.shapes()]
        if not all(shapes):
            raise GraphError("a TorchScript file does not say its shape: call set_dimension")
        free = [{0} | varying_axes(config, index) for index in range(len(shapes))]
        key = str((shapes, free))
        if key not in self._converted:
            kinds = [np.zeros(0, get_numpy_dtype_by_datatype(tensor.get_data_type())) for tensor in self.inputs]
            self._converted[key] = self.source.converted(shapes, [torch.from_numpy(kind).dtype for kind in kinds], free)
        return self._converted[key]


def varying_axes(config: BuilderConfig, index: int) -> set[int]:
    """The axes of an input that ``dim_range`` lets vary."""
    limits = config._get("dim_range", {}).get(str(index))
    if limits is None or config._get("graph_shape_mutable") is False:
        return set()
    return {axis for axis, (low, high) in enumerate(zip(limits["min"], limits["max"], strict=True)) if low < high}


def _tensor(value: onnx.ValueInfoProto) -> ITensor:
    kind = value.type.tensor_type
    if kind.elem_type not in _ELEMENTS:
        raise GraphError(f"'{value.name}' has an element type that is not taken")
    dims = [-1 if dim.dim_param or not dim.dim_value else dim.dim_value for dim in kind.shape.dim]
    return ITensor(value.name, dims, _ELEMENTS[kind.elem_type], len(dims))


class Network:
    """Empty until a parser fills it."""

    def __init__(self) -> None:
        self._content: Content | None = None

    def get_input_count(self) -> int:
        return len(self._content.inputs) if self._content else 0

    def get_output_count(self) -> int:
        return len(self._content.outputs) if self._content else 0

    def get_input(self, index: int) -> ITensor:
        return self._at("get_input", self._content.inputs if self._content else [], index)

    def get_output(self, index: int) -> ITensor:
        return self._at("get_output", self._content.outputs if self._content else [], index)

    @staticmethod
    def _at(call: str, tensors: list[ITensor], index: int) -> ITensor:
        need(call, index, int)
        if not 0 <= index < len(tensors):
            raise IndexError(f"{call}(): no tensor {index} among {len(tensors)}")
        return tensors[index]
