"""A network as a graph of operators, and its execution on the CPU.

Executed on torch's ``meta`` device, a graph computes shapes and no numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import onnx
import torch
from onnx import helper
from torch import Tensor

from .numerics import Numerics
from .operators import OPERATORS, OPSETS, QUANTISED, Node, to_torch

Watch = Callable[[str, Tensor], None]

Weights = dict[tuple[str, int], Tensor]
"""By the first output of a node and the number of its input."""


class GraphError(Exception):
    """A file that the emulated parser does not take."""


class Graph:
    """An ONNX model, checked, with its constants apart from its nodes.

    Raises:
        GraphError: an opset or an operator that is not taken.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        if opsets.get("", 0) not in OPSETS:
            raise GraphError(f"opset {opsets.get('', 0)} is not taken: export at opset 11")
        self.constants = {tensor.name: to_torch(tensor) for tensor in model.graph.initializer}
        self.inputs = [value for value in model.graph.input if value.name not in self.constants]
        self.outputs = list(model.graph.output)
        self.nodes: list[Node] = []
        for proto in model.graph.node:
            node = Node(
                proto.op_type,
                tuple(proto.input),
                tuple(proto.output),
                {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute},
                opsets[""],
            )
            if node.kind == "Constant":
                self.constants[node.outputs[0]] = _constant(node)
            elif node.kind == "Identity" and node.inputs[0] in self.constants:
                self.constants[node.outputs[0]] = self.constants[node.inputs[0]]
            elif node.kind not in OPERATORS or proto.domain not in ("", "ai.onnx"):
                raise GraphError(f"operator '{node.kind}' is not taken")
            else:
                self.nodes.append(node)
        _refuse_global_pools(model)
        self.constants = {
            name: x.float() if x.is_floating_point() and x.dtype != torch.float64 else x
            for name, x in self.constants.items()
        }
        self._uses = Counter(name for node in self.nodes for name in set(node.inputs))
        self._uses.update(value.name for value in self.outputs)

    def quantised_names(self) -> set[str]:
        """The computed tensors that a quantised precision needs ranges of."""
        return {name for node in self.nodes if node.kind in QUANTISED for name in node.inputs[:2]} - set(self.constants)

    def consumers(self, name: str) -> list[Node]:
        return [node for node in self.nodes if name in node.inputs]

    def weights(self, numerics: Numerics) -> Weights:
        """The constant inputs of all nodes as a precision has them, to be rounded once and used often."""
        return {
            (node.outputs[0], index): numerics.weight(node, index, self.constants[name])
            for node in self.nodes
            for index, name in enumerate(node.inputs)
            if name in self.constants and self.constants[name].is_floating_point()
        }

    def run(
        self, inputs: Sequence[Tensor], numerics: Numerics, weights: Weights, watch: Watch | None = None
    ) -> list[Tensor]:
        """Outputs for inputs, both in the order of the graph.

        Args:
            inputs: tensors of one device, the CPU or ``meta``.
            numerics: the arithmetic.
            weights: what ``weights`` gave for it; not needed on ``meta``.
            watch: is shown each tensor that ``quantised_names`` names.
        """
        meta = inputs[0].is_meta
        watched = self.quantised_names() if watch is not None else set()
        values: dict[str, Tensor] = {}

        def keep(name: str, x: Tensor) -> None:
            values[name] = numerics.result(x)
            if watch is not None and name in watched:
                watch(name, values[name])

        def argument(node: Node, index: int, name: str) -> Tensor | None:
            if not name:
                return None
            if name in values:
                return numerics.activation(node, index, name, values[name])
            constant = self.constants[name]
            # Integers are shapes and stay numbers where all else is meta, and so do single numbers, which fit both.
            if meta:
                return constant.to("meta") if constant.is_floating_point() and constant.dim() else constant
            return weights.get((node.outputs[0], index), constant)

        uses = Counter(self._uses)
        for value, x in zip(self.inputs, inputs, strict=True):
            keep(value.name, x)
        for node in self.nodes:
            results = OPERATORS[node.kind](node, [argument(node, i, name) for i, name in enumerate(node.inputs)])
            for name, x in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=False):
                keep(name, x)
            for name in set(node.inputs):
                uses[name] -= 1
                if not uses[name]:
                    values.pop(name, None)  # activations of a whole batch are large
        return [values[value.name] if value.name in values else self.constants[value.name] for value in self.outputs]


def _constant(node: Node) -> Tensor:
    for name, value in node.attributes.items():
        if name == "value":
            return to_torch(value)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
    raise GraphError("a Constant without a number is not taken")


def _refuse_global_pools(model: onnx.ModelProto) -> None:
    """A global pool over time and space is taken by no parser known to be public [I]."""
    pools = [node for node in model.graph.node if node.op_type == "GlobalAveragePool"]
    if not pools:
        return
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    for node in pools:
        if ranks.get(node.input[0]) == 5:
            raise GraphError("a 3-D global average pool is not taken: make it a 2-D one over [t, h*w]")
