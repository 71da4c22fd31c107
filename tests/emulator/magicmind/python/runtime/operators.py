"""ONNX operators in torch: those that clip networks exported at opset 11 use, and their near relatives.

Which operators MagicMind takes is not public [–], except that a 3-D global pool is likely missing [I]. What an operator
means is ONNX's own specification, opsets 9 to 17.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

OPSETS = range(9, 18)
"""The opsets whose meaning is implemented."""

QUANTISED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators whose inputs are integers in the quantised precisions; inputs 0 and 1 of each."""


@dataclass(frozen=True)
class Node:
    """One operation of a graph."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


Inputs = list[Any]  # tensors; None where an optional input is left out
Operator = Callable[[Node, Inputs], Any]

OPERATORS: dict[str, Operator] = {}


def _operator(*kinds: str) -> Callable[[Operator], Operator]:
    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(kinds, function))
        return function

    return register


def _input(x: Inputs, index: int) -> Any:
    return x[index] if index < len(x) else None


def _ints(tensor: Tensor | None) -> list[int]:
    return [] if tensor is None else [int(value) for value in tensor.reshape(-1).tolist()]


def to_torch(proto: onnx.TensorProto) -> Tensor:
    """A tensor of a file, copied out of it."""
    return torch.from_numpy(numpy_helper.to_array(proto).copy())


_DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float32,  # half precision is emulated in float32
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


# Convolutions and pools


def _pads(
    node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Padding of each spatial axis, all begins and then all ends, as ``pads`` has it."""
    rank = len(kernel)
    auto = node.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        return list(node.get("pads", [0] * 2 * rank))
    if auto == "VALID":
        return [0] * 2 * rank
    begins, ends = [], []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return begins + ends


def _symmetric(x: Tensor, pads: list[int], fill: float) -> tuple[Tensor, list[int]]:
    """Padding that torch's operators take themselves; where begins and ends differ, it is done beforehand."""
    rank = len(pads) // 2
    begins, ends = pads[:rank], pads[rank:]
    if begins == ends:
        return x, begins
    both = [length for axis in reversed(range(rank)) for length in (begins[axis], ends[axis])]
    return functional.pad(x, both, value=fill), [0] * rank


@_operator("Conv")
def _conv(node: Node, x: Inputs) -> Tensor:
    rank = x[1].dim() - 2
    strides, dilations = list(node.get("strides", [1] * rank)), list(node.get("dilations", [1] * rank))
    pads = _pads(node, x[0].shape[2:], x[1].shape[2:], strides, dilations)
    padded, padding = _symmetric(x[0], pads, 0.0)
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    return convolve(padded, x[1], _input(x, 2), strides, padding, dilations, node.get("group", 1))


@_operator("MaxPool")
def _max_pool(node: Node, x: Inputs) -> Tensor:
    kernel = list(node.get("kernel_shape"))
    rank = len(kernel)
    strides, dilations = list(node.get("strides", [1] * rank)), list(node.get("dilations", [1] * rank))
    padded, padding = _symmetric(x[0], _pads(node, x[0].shape[2:], kernel, strides, dilations), -math.inf)
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
    return pool(padded, kernel, strides, padding, dilations, ceil_mode=bool(node.get("ceil_mode", 0)))


@_operator("AveragePool")
def _average_pool(node: Node, x: Inputs) -> Tensor:
    kernel = list(node.get("kernel_shape"))
    rank = len(kernel)
    strides = list(node.get("strides", [1] * rank))
    pads = _pads(node, x[0].shape[2:], kernel, strides, [1] * rank)
    if not node.get("count_include_pad", 0) and pads[:rank] != pads[rank:]:
        raise ValueError("AveragePool with uneven padding that does not count is not emulated")
    padded, padding = _symmetric(x[0], pads, 0.0)
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[rank]
    ceil = bool(node.get("ceil_mode", 0))
    return pool(
        padded, kernel, strides, padding, ceil_mode=ceil, count_include_pad=bool(node.get("count_include_pad", 0))
    )


@_operator("GlobalAveragePool")
def _global_average_pool(node: Node, x: Inputs) -> Tensor:
    return x[0].mean(dim=tuple(range(2, x[0].dim())), keepdim=True)


@_operator("BatchNormalization")
def _batch_norm(node: Node, x: Inputs) -> Tensor:
    return functional.batch_norm(x[0], x[3], x[4], x[1], x[2], training=False, eps=node.get("epsilon", 1e-5))


# Products


@_operator("Gemm")
def _gemm(node: Node, x: Inputs) -> Tensor:
    a = x[0].t() if node.get("transA", 0) else x[0]
    b = x[1].t() if node.get("transB", 0) else x[1]
    product = node.get("alpha", 1.0) * (a @ b)
    return product if _input(x, 2) is None else product + node.get("beta", 1.0) * x[2]


@_operator("MatMul")
def _matmul(node: Node, x: Inputs) -> Tensor:
    return torch.matmul(x[0], x[1])


# Element by element


def _each(function: Callable[..., Any]) -> Operator:
    return lambda _, x: function(*x)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


OPERATORS.update(
    {
        "Add": _each(torch.add),
        "Sub": _each(torch.sub),
        "Mul": _each(torch.mul),
        "Div": _each(_divide),
        "Pow": _each(torch.pow),
        "Max": _each(torch.maximum),
        "Min": _each(torch.minimum),
        "Relu": _each(torch.relu),
        "Sigmoid": _each(torch.sigmoid),
        "Tanh": _each(torch.tanh),
        "Erf": _each(torch.erf),
        "Exp": _each(torch.exp),
        "Sqrt": _each(torch.sqrt),
        "Neg": _each(torch.neg),
        "Abs": _each(torch.abs),
        "Floor": _each(torch.floor),
        "Equal": _each(torch.eq),
        "Where": _each(torch.where),
        "Identity": _each(lambda x: x),
        "Dropout": lambda _, x: x[0],
        "LeakyRelu": lambda node, x: functional.leaky_relu(x[0], node.get("alpha", 0.01)),
        "HardSwish": _each(functional.hardswish),
    }
)


@_operator("HardSigmoid")
def _hard_sigmoid(node: Node, x: Inputs) -> Tensor:
    return (x[0] * node.get("alpha", 0.2) + node.get("beta", 0.5)).clamp(0, 1)


@_operator("Clip")
def _clip(node: Node, x: Inputs) -> Tensor:
    low, high = (node.get("min"), node.get("max")) if node.opset < 11 else (_input(x, 1), _input(x, 2))
    out = x[0]
    if low is not None:
        out = torch.maximum(out, torch.as_tensor(low, dtype=out.dtype, device=out.device))
    if high is not None:
        out = torch.minimum(out, torch.as_tensor(high, dtype=out.dtype, device=out.device))
    return out


@_operator("Softmax")
def _softmax(node: Node, x: Inputs) -> Tensor:
    if node.opset >= 13:
        return torch.softmax(x[0], node.get("axis", -1))
    axis = node.get("axis", 1) % x[0].dim()  # until opset 12, over all axes from this one on
    return torch.softmax(x[0].flatten(axis), axis).reshape(x[0].shape)


@_operator("Cast")
def _cast(node: Node, x: Inputs) -> Tensor:
    return x[0].to(_DTYPES[node.get("to")])


# Reductions


@_operator("ReduceMean", "ReduceSum", "ReduceMax")
def _reduce(node: Node, x: Inputs) -> Tensor:
    axes = _ints(_input(x, 1)) or list(node.get("axes", [])) or list(range(x[0].dim()))
    reduce: Any = {"ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax}[node.kind]
    return reduce(x[0], dim=tuple(axes), keepdim=bool(node.get("keepdims", 1)))


# Shapes


@_operator("Shape")
def _shape(node: Node, x: Inputs) -> Tensor:
    return torch.tensor(list(x[0].shape), dtype=torch.int64)[node.get("start", 0) : node.get("end")]


@_operator("Reshape")
def _reshape(node: Node, x: Inputs) -> Tensor:
    wanted = _ints(x[1])
    return x[0].reshape([x[0].shape[axis] if length == 0 else length for axis, length in enumerate(wanted)])


@_operator("Flatten")
def _flatten(node: Node, x: Inputs) -> Tensor:
    axis = node.get("axis", 1)
    axis += x[0].dim() if axis < 0 else 0
    return x[0].reshape(math.prod(x[0].shape[:axis]), -1)


@_operator("Transpose")
def _transpose(node: Node, x: Inputs) -> Tensor:
    return x[0].permute(*node.get("perm", list(reversed(range(x[0].dim())))))


@_operator("Unsqueeze")
def _unsqueeze(node: Node, x: Inputs) -> Tensor:
    axes = _ints(_input(x, 1)) or list(node.get("axes", []))
    out, rank = x[0], x[0].dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        out = out.unsqueeze(axis)
    return out


@_operator("Squeeze")
def _squeeze(node: Node, x: Inputs) -> Tensor:
    axes = _ints(_input(x, 1)) or list(node.get("axes", []))
    return x[0].squeeze(tuple(axes)) if axes else x[0].squeeze()


@_operator("Concat")
def _concat(node: Node, x: Inputs) -> Tensor:
    return torch.cat(x, dim=node.get("axis"))


@_operator("Split")
def _split(node: Node, x: Inputs) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    sizes = _ints(_input(x, 1)) or list(node.get("split", []))
    return torch.split(x[0], sizes or x[0].shape[axis] // len(node.outputs), dim=axis)


@_operator("Gather")
def _gather(node: Node, x: Inputs) -> Tensor:
    axis = node.get("axis", 0) % x[0].dim()
    length = x[0].shape[axis]
    index = torch.where(x[1] < 0, x[1] + length, x[1]).to(torch.int64)
    chosen = x[0].index_select(axis, index.reshape(-1).to(x[0].device))
    return chosen.reshape([*x[0].shape[:axis], *index.shape, *x[0].shape[axis + 1 :]])


@_operator("Slice")
def _slice(node: Node, x: Inputs) -> Tensor:
    if node.opset < 10:
        starts, ends = list(node.get("starts")), list(node.get("ends"))
        axes, steps = list(node.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = _ints(x[1]), _ints(x[2])
        axes = _ints(_input(x, 3)) or list(range(len(starts)))
        steps = _ints(_input(x, 4)) or [1] * len(starts)
    out = x[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(out.shape[axis])[start:end:step]
        index = torch.tensor(list(chosen), dtype=torch.int64, device=out.device)
        out = out.index_select(axis % out.dim(), index)
    return out


@_operator("Expand")
def _expand(node: Node, x: Inputs) -> Tensor:
    return x[0].expand(torch.broadcast_shapes(x[0].shape, _ints(x[1])))


@_operator("ConstantOfShape")
def _constant_of_shape(node: Node, x: Inputs) -> Tensor:
    value = node.get("value")
    fill = to_torch(value) if value is not None else torch.zeros(1)
    return fill.reshape(()).expand(_ints(x[0])).clone()


@_operator("Pad")
def _pad(node: Node, x: Inputs) -> Tensor:
    pads = _ints(_input(x, 1)) if node.opset >= 11 else list(node.get("pads"))
    rank = len(pads) // 2
    both = [length for axis in reversed(range(rank)) for length in (pads[axis], pads[axis + rank])]
    mode = node.get("mode", b"constant").decode()
    if mode == "constant":
        fill = _input(x, 2) if node.opset >= 11 else node.get("value", 0.0)
        number = 0.0 if fill is None or (isinstance(fill, Tensor) and fill.is_meta) else float(fill)
        return functional.pad(x[0], both, value=number)
    while len(both) > 2 and both[-2:] == [0, 0]:  # torch wants the padded axes only
        both = both[:-2]
    return functional.pad(x[0], both, mode={"edge": "replicate", "reflect": "reflect"}[mode])
