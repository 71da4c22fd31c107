"""``Builder`` [V]: from a network and a configuration to a ``Model``, or None; why is said on stderr.

A first node that is no convolution refuses normalisation before it [V, a comment]; a quantised build without ranges
fails [I].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ..cc._pywrap_runtime import ITensor
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.enums import DataType
from . import faults, machine
from .builder_config import BuilderConfig
from .executable import output_shapes
from .graph import Graph, GraphError
from .model import Model
from .network import Content, Network
from .numerics import ANY, Range
from .program import Port, Program, Shape


class Builder:
    """Builds models."""

    def build_model(self, name: str, network: Network, config: BuilderConfig | None = None) -> Model | None:
        need("build_model", name, str)
        need("build_model", network, Network)
        config = BuilderConfig() if config is None else config
        need("build_model", config, BuilderConfig)
        if faults.strikes("build_model"):
            return machine.complain("build_model", "a fault was asked for")
        if network._content is None:
            return machine.complain("build_model", "the network is empty")
        try:
            return Model._of(_compile(name, network._content, config))
        except GraphError as error:
            return machine.complain("build_model", str(error))


def _compile(name: str, content: Content, config: BuilderConfig) -> Program:
    model = content.model(config)
    graph = Graph(model)
    archs = config._archs()
    unknown = sorted(archs.keys() - set(machine.ARCHS))
    if unknown:
        raise GraphError(f"unknown architecture '{unknown[0]}'")
    counts = {"convert_output_layout": len(content.outputs)}
    for key in ("dim_range", "convert_input_layout", "convert_output_layout", "insert_bn_before_firstnode"):
        beyond = [index for index in config._get(key, {}) if int(index) >= counts.get(key, len(content.inputs))]
        if beyond:
            raise GraphError(f"{key} speaks of tensor {beyond[0]}, which the network lacks")
    inputs = tuple(_input(index, tensor, graph, config) for index, tensor in enumerate(content.inputs))
    precision = config._get("precision_config.precision_mode", "force_float32")
    ranges = _ranges(content, config)
    missing = sorted(graph.quantised_names() - ranges.keys()) if ANY not in ranges else []
    if precision.startswith("qint") and missing:
        raise GraphError(f"{precision} needs a calibration: '{missing[0]}' has no range")
    return Program(
        name=name,
        inputs=inputs,
        outputs=_outputs(content, graph, inputs, config),
        precision=precision,
        granularity=config._get("precision_config.weight_quant_granularity", "per_tensor"),
        algorithm=config._get("precision_config.activation_quant_algo", "symmetric"),
        ranges=ranges if precision.startswith("qint") else {},
        archs=archs,
        network=model.SerializeToString(),
    )


def _ranges(content: Content, config: BuilderConfig) -> dict[str, Range]:
    custom = config._get("custom_ranges", {})
    return content.ranges | {name: (min(given["min"]), max(given["max"])) for name, given in custom.items()}


def _input(index: int, tensor: ITensor, graph: Graph, config: BuilderConfig) -> Port:
    name = tensor.get_tensor_name()
    lengths = tensor.get_dimension().GetDims()
    mutable = config._get("graph_shape_mutable")
    limits = config._get("dim_range", {}).get(str(index)) if mutable is not False else None
    low: Shape | None = None
    high: Shape | None = None
    if limits is not None:
        low, high = tuple(limits["min"]), tuple(limits["max"])
        outside = len(low) != len(lengths) or any(
            length != -1 and not a <= length <= b for length, a, b in zip(lengths, low, high, strict=True)
        )
        if outside:
            raise GraphError(f"'{name}' is {lengths}, outside of its dim_range {list(low)} to {list(high)}")
        dims = tuple(a if a == b else -1 for a, b in zip(low, high, strict=True))
    elif mutable:
        dims = tuple([-1] * len(lengths))
    elif -1 in lengths:
        raise GraphError(
            f"'{name}' is {lengths}: call set_dimension, or let it vary by graph_shape_mutable and dim_range"
        )
    else:
        dims = tuple(lengths)
    layout = _layout(config, "convert_input_layout", index, name, len(dims))
    mean = var = None
    data_type = tensor.get_data_type()
    normalisation = config._get("insert_bn_before_firstnode", {}).get(str(index))
    if normalisation is not None:
        data_type = DataType.UINT8  # whatever was set before
        mean, var = tuple(map(float, normalisation["mean"])), tuple(map(float, normalisation["var"]))
        # Of a TorchScript network the graph's inputs have names of their own: what counts is their order.
        if {node.kind for node in graph.consumers(graph.inputs[index].name)} != {"Conv"}:
            raise GraphError(f"insert_bn_before_firstnode: '{name}' does not go into a convolution")
        if len(dims) < 2 or dims[1] not in (-1, len(mean)):
            raise GraphError(f"insert_bn_before_firstnode: {len(mean)} means for '{name}', which is {list(dims)}")
    port = Port(name, data_type, dims, layout=layout, mean=mean, var=var)
    if low is not None and high is not None:
        port = dataclasses.replace(port, low=port.outward(low), high=port.outward(high))
    return dataclasses.replace(port, dims=port.outward(dims))


def _layout(config: BuilderConfig, key: str, index: int, name: str, rank: int) -> Shape | None:
    names = config._get(key, {}).get(str(index))
    if names is None:
        return None
    if len(names["src"]) != rank:
        raise GraphError(f"{key}: '{name}' has {rank} axes, {names['src']} has {len(names['src'])}")
    return tuple(names["src"].index(letter) for letter in names["dst"])


def _outputs(content: Content, graph: Graph, inputs: Sequence[Port], config: BuilderConfig) -> tuple[Port, ...]:
    """Declared outputs; an axis whose length differs between the smallest and the largest input varies."""
    smallest, largest = [], []
    for port, lengths in zip(inputs, content.shapes(), strict=True):
        given = [max(length, 1) for length in lengths]
        free = port.low is None and -1 in port.dims
        smallest.append(given if port.low is None else port.inward(port.low))
        # Where nothing bounds the input, one more in the batch tells.
        largest.append(([given[0] + 1, *given[1:]] if free else given) if port.high is None else port.inward(port.high))
    try:
        shapes = [output_shapes(graph, shapes) for shapes in (smallest, largest)]
    except Exception as error:  # torch raises many kinds for shapes that do not fit
        raise GraphError(f"the shapes {smallest} to {largest} do not fit the network ({error})") from None
    ports = []
    for index, (tensor, few, many) in enumerate(zip(content.outputs, *shapes, strict=True)):
        dims: Any = tuple(a if a == b else -1 for a, b in zip(few, many, strict=True))
        layout = _layout(config, "convert_output_layout", index, tensor.get_tensor_name(), len(dims))
        port = Port(tensor.get_tensor_name(), tensor.get_data_type(), dims, layout=layout)
        ports.append(dataclasses.replace(port, dims=port.outward(dims)))
    if any(math.prod(shape) == 0 for shape in (*shapes[0], *shapes[1])):
        raise GraphError("an output would be empty")
    return tuple(ports)
