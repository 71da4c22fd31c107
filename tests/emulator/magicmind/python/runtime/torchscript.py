"""TorchScript files, taken in by way of ONNX.

That a parser needs ``pytorch-input-dtypes`` is [V]; that it has no 3-D adaptive pool is [I]. A TorchScript file does
not say its input's shape, so a network made of one is converted when its shape has been set.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx
import torch

from .graph import GraphError

REFUSED = "aten::adaptive_avg_pool3d"


class Script:
    """A loaded TorchScript module.

    Raises:
        GraphError: not a TorchScript file, or one with an operator that is not taken.
    """

    def __init__(self, path: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._module: Any = torch.jit.load(path, map_location="cpu").eval()
        except (RuntimeError, ValueError, OSError) as error:
            first_line = next(iter(str(error).splitlines()), "")
            raise GraphError(f"'{path}' is no TorchScript file ({first_line[:120]})") from None
        graph = self._module.inlined_graph
        if graph.findNode(REFUSED) is not None:
            raise GraphError(f"{REFUSED} is not taken: make it a 2-D pool over [t, h*w]")
        self.inputs = [value.debugName() for value in list(graph.inputs())[1:]]  # without the module itself
        self.outputs = [value.debugName() for value in graph.outputs()]

    def converted(self, shapes: list[list[int]], dtypes: list[torch.dtype], varying: list[set[int]]) -> onnx.ModelProto:
        """The same network as ONNX, for these shapes, of which the ``varying`` axes stay free.

        Raises:
            GraphError: the shapes do not fit, or an operator is not taken.
        """
        inputs = [f"input{index}" for index in range(len(shapes))]
        outputs = [f"output{index}" for index in range(len(self.outputs))]
        free = {
            name: {axis: f"{name}_{axis}" for axis in axes} for name, axes in zip(inputs, varying, strict=True) if axes
        }
        file = io.BytesIO()
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    self._module,
                    tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)),
                    file,
                    dynamo=False,
                    opset_version=11,
                    input_names=inputs,
                    output_names=outputs,
                    dynamic_axes=free,
                )
        except Exception as error:  # the exporter's own classes are many
            raise GraphError(f"cannot be converted for {shapes} ({str(error).strip()[:200]})") from None
        return onnx.load_from_string(file.getvalue())
