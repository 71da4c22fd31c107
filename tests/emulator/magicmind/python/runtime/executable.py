"""What computes a built model, with torch: in this interpreter, or in another one for elsewhere.py."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from .graph import Graph
from .numerics import Numerics
from .program import Array, Port, Program, Shape


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
                _as_element(_enter(port, array), element)
                for port, array, element in zip(self.program.inputs, arrays, self._elements, strict=True)
            ]
            outputs = self._graph.run(inputs, self._numerics, self._weights)
            return [_leave(port, x) for port, x in zip(self.program.outputs, outputs, strict=True)]


def _enter(port: Port, array: Array) -> Tensor:
    """What the graph gets of an array: in its layout, normalised, float unless it is of whole numbers by nature."""
    x = torch.from_numpy(np.ascontiguousarray(array.transpose(port.inward(range(array.ndim)))))
    if port.mean is not None and port.var is not None:
        along = (1, -1, *[1] * (x.dim() - 2))
        return (x.float() - torch.tensor(port.mean).reshape(along)) / torch.tensor(port.var).sqrt().reshape(along)
    return x


def _leave(port: Port, x: Tensor) -> Array:
    """An output as an array of the declared layout and type."""
    array = x.numpy().transpose(port.layout) if port.layout is not None else x.numpy()
    with np.errstate(all="ignore"):
        return np.array(array, dtype=port.dtype, order="C")


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
