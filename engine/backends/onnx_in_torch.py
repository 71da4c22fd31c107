"""An ONNX network run by torch, operator by operator: what the torch backend puts on its device.

Only operators of clip networks are known, by their meaning in opsets 7 to 21. Floating-point values are tensors on the
device, all in one precision; integers (shapes, axes, indices) stay on the host, where arithmetic on them costs nothing
and waits for no device. What follows the last large operator but the classifier, a mean and the classifier itself, is
always computed in float32: it costs nothing, and logits of 8 bits alone would move scores by 0.02.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

from clipmux.engine.errors import ModelError

Attributes = dict[str, Any]
Operation = Callable[..., Any]


@dataclass(frozen=True)
class _Step:
    """One operator: names of what it reads (empty: left out) and writes, and of what nobody reads after it."""

    operation: Operation
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    done_with: tuple[str, ...]
    wide: bool
    says: str


@dataclass(frozen=True)
class Ends:
    """The shape of the one input or output; ``None`` for a dimension that is free or unknown."""

    name: str
    shape: tuple[int | None, ...] | None


class OnnxInTorch:
    """A float32 ONNX network with one input and one output, on a device.

    Args:
        path: of the ``.onnx`` file.
        device: where its weights go.
        dtype: of its weights and its arithmetic, up to the classifier.
        rounded_to: round what every operator gives to this precision and go on in ``dtype``: the answers of half
            precision from devices that are slow at it.
        channels_last: keep the weights of convolutions in the order ``[out, *kernel, in]``, which inputs of that order
            make the faster one.

    Raises:
        ModelError: the file cannot be read, or holds an operator, or a form of one, that is not known here.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        rounded_to: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        self._path = path
        self._device = device
        self._dtype = dtype
        self._rounded_to = rounded_to
        model = _read(path)
        graph = model.graph
        opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
        weights = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in weights]  # old files list weights too
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ModelError(
                f"'{path}' has {len(inputs)} inputs and {len(graph.output)} outputs, one of each is needed"
            )
        self.input = _ends(inputs[0])
        self.output = _ends(graph.output[0])
        kernels = {node.input[1] for node in graph.node if node.op_type == "Conv" and len(node.input) > 1}
        self._constants: dict[str, Tensor] = {}
        self._wide_constants: dict[str, Tensor] = {}
        first_wide = _first_wide(graph)
        read = [{name for node in nodes for name in node.input} for nodes in _split_at(graph.node, first_wide)]
        for tensor in graph.initializer:
            if tensor.name in read[0]:
                last = channels_last and tensor.name in kernels
                self._constants[tensor.name] = self._constant(tensor, channels_last=last)
            if tensor.name in read[1]:
                self._wide_constants[tensor.name] = self._constant(tensor, wide=True)
        self._steps = self._read_steps(graph, opset, first_wide)

    def __call__(self, clips: Tensor) -> Tensor:
        """Logits for normalised clips of ``dtype``, both on the device.

        Raises:
            ModelError: an operator cannot do what the network asks of it.
        """
        values: dict[str, Tensor] = {self.input.name: self._round(clips)}
        for step in self._steps:
            try:
                arguments = [self._value(name, values, wide=step.wide) for name in step.reads]
                given = step.operation(*arguments)
            except (RuntimeError, ValueError, TypeError, LookupError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                first_line = next(iter(str(error).splitlines()), type(error).__name__)
                raise ModelError(f"'{self._path}' fails in torch at {step.says} ({first_line[:200]})") from error
            for name, value in zip(step.writes, given if isinstance(given, list | tuple) else [given], strict=False):
                values[name] = value if step.wide else self._round(value)
            for name in step.done_with:
                values.pop(name, None)
        return values[self.output.name]

    def _value(self, name: str, values: dict[str, Tensor], *, wide: bool) -> Tensor | None:
        if not name:
            return None
        if name not in values:
            return self._wide_constants[name] if wide else self._constants[name]
        value = values[name]
        return value.to(torch.float32) if wide and value.is_floating_point() else value

    def _round(self, value: Tensor) -> Tensor:
        if self._rounded_to is None or not value.is_floating_point():
            return value
        return value.to(self._rounded_to).to(self._dtype)

    def _constant(self, tensor: Any, *, wide: bool = False, channels_last: bool = False) -> Tensor:
        try:
            array = numpy_helper.to_array(tensor)
            value = torch.from_numpy(array.copy())  # a copy: the file's own bytes may not be written to
        except (TypeError, ValueError, OSError) as error:
            raise ModelError(f"'{self._path}' has weights '{tensor.name}' that cannot be read ({error})") from None
        if not value.is_floating_point():
            return value
        if wide:
            return value.to(self._device, torch.float32)
        value = self._round(value.to(self._device, self._dtype))
        if channels_last and value.dim() == 5:
            value = value.contiguous(memory_format=torch.channels_last_3d)
        return value

    def _read_steps(self, graph: Any, opset: int, first_wide: int) -> list[_Step]:
        """The operators in the file's order, which ONNX wants sorted; constants are taken out."""
        nodes = []
        for place, node in enumerate(graph.node):
            wide = place >= first_wide
            attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
            if node.op_type == "Constant" and not node.domain:
                self._constants[node.output[0]] = self._constant_node(attributes, node.name, wide=False)
                self._wide_constants[node.output[0]] = self._constant_node(attributes, node.name, wide=True)
                continue
            maker = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            if maker is None:
                name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                raise ModelError(
                    f"'{self._path}' has the operator '{name}', which the torch backend does not know: "
                    "use --backend openvino"
                )
            try:
                operation = maker(_Context(attributes, opset, self._device, torch.float32 if wide else self._dtype))
            except _UnknownFormError as error:
                raise ModelError(
                    f"'{self._path}' has {node.op_type} '{node.name}' {error}, which the torch backend does not know: "
                    "use --backend openvino"
                ) from None
            nodes.append((node, operation, wide))
        last_read: dict[str, int] = {}
        known = {self.input.name, *self._constants, *self._wide_constants}
        for index, (node, _, _) in enumerate(nodes):
            for name in node.input:
                if name and name not in known:
                    raise ModelError(f"'{self._path}' reads '{name}', which nothing gives: export it again")
                last_read[name] = index
            known.update(node.output)
        if self.output.name not in known:
            raise ModelError(f"'{self._path}' has no operator that gives '{self.output.name}': export it again")
        last_read[self.output.name] = len(nodes)
        return [
            _Step(
                operation,
                tuple(node.input),
                tuple(node.output),
                tuple({name for name in (*node.input, *node.output) if last_read.get(name, index) == index}),
                wide,
                f"{node.op_type} '{node.name}'",
            )
            for index, (node, operation, wide) in enumerate(nodes)
        ]

    def _constant_node(self, attributes: Attributes, name: str, *, wide: bool) -> Tensor:
        dtype = torch.float32 if wide else self._dtype
        for key in ("value_float", "value_floats"):
            if key in attributes:
                return torch.tensor(attributes[key], dtype=dtype, device=self._device)
        for key in ("value_int", "value_ints"):
            if key in attributes:
                return torch.tensor(attributes[key], dtype=torch.int64)
        if "value" not in attributes:
            raise ModelError(f"'{self._path}' has a constant '{name}' that is no tensor: export it again")
        return self._constant(attributes["value"], wide=wide)


def _read(path: Path) -> Any:
    """The file's content, with weights that lie in files of their own."""
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf and onnx raise kinds of their own, which differ between versions
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"'{path}' cannot be read as ONNX ({first_line[:200]}): export the model again") from None


def _first_wide(graph: Any) -> int:
    """Place of the first operator after the last large one, not counting the classifier, which ends the network."""
    large = [place for place, node in enumerate(graph.node) if node.op_type in ("Conv", "Gemm", "MatMul")]
    if large and graph.node[large[-1]].op_type != "Conv":
        large.pop()
    return large[-1] + 1 if large else len(graph.node)


def _split_at(nodes: Sequence[Any], place: int) -> tuple[Sequence[Any], Sequence[Any]]:
    return nodes[:place], nodes[place:]


def _ends(value: Any) -> Ends:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return Ends(value.name, None)
    return Ends(value.name, tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim))


def _attribute(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


# --- operators -------------------------------------------------------------------------------------------------------
# Each maker reads a node's attributes once and gives the function that computes it.


class _UnknownFormError(Exception):
    """A known operator used in a way that is not; says which, as the end of a sentence."""


@dataclass(frozen=True)
class _Context:
    """What a maker may look at."""

    attributes: Attributes
    opset: int
    device: torch.device
    dtype: torch.dtype

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


def _same_place(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two operands in one place: integers of the host may meet values of the device."""
    if a.device == b.device:
        return a, b
    return (a.to(b.device), b) if a.device.type == "cpu" else (a, b.to(a.device))


def _two(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[[_Context], Operation]:
    return lambda _: lambda a, b: operation(*_same_place(a, b))


def _one(operation: Callable[[Tensor], Tensor]) -> Callable[[_Context], Operation]:
    return lambda _: operation


def _integers(value: Tensor | Sequence[int] | None) -> list[int]:
    """A small integer tensor, or an attribute, as plain numbers."""
    if value is None:
        return []
    return [int(n) for n in value.reshape(-1).tolist()] if isinstance(value, Tensor) else [int(n) for n in value]


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _padding(
    context: _Context, spatial: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial axis."""
    rank = len(kernel)
    automatic = context.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
            total = max(0, (math.ceil(size / s) - 1) * s + d * (k - 1) + 1 - size)
            small, large = total // 2, total - total // 2
            before.append(small if automatic == "SAME_UPPER" else large)
            after.append(large if automatic == "SAME_UPPER" else small)
        return before, after
    pads = [0] * 2 * rank if automatic == "VALID" else context.get("pads", [0] * 2 * rank)
    return list(pads[:rank]), list(pads[rank:])


def _pad_torch(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """ONNX names the first axis first, torch the last one."""
    return [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]


def _conv(context: _Context) -> Operation:
    convolutions = (functional.conv1d, functional.conv2d, functional.conv3d)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = weight.shape[2:]
        rank = len(kernel)
        stride = list(context.get("strides", [1] * rank))
        dilation = list(context.get("dilations", [1] * rank))
        before, after = _padding(context, x.shape[2:], kernel, stride, dilation)
        if before != after:
            x, before = functional.pad(x, _pad_torch(before, after)), [0] * rank
        if x.is_cuda and x.dtype == torch.bfloat16 and x.shape[1] == weight.shape[1] == 3:
            # A fourth channel of zeros: a 3D-ResNet's first layer takes 12 ms for 64 clips, not 29 (H200, cuDNN 9.19).
            fourth = [0, 0] * rank + [0, 1]
            x, weight = functional.pad(x, fourth), functional.pad(weight, fourth)
        return convolutions[rank - 1](x, weight, bias, stride, before, dilation, context.get("group", 1))

    return run


def _max_pool(context: _Context) -> Operation:
    pools = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
    kernel = list(context.get("kernel_shape"))
    rank = len(kernel)
    stride = list(context.get("strides", [1] * rank))
    dilation = list(context.get("dilations", [1] * rank))
    ceil = bool(context.get("ceil_mode", 0))

    def run(x: Tensor) -> Tensor:
        before, after = _padding(context, x.shape[2:], kernel, stride, dilation)
        if before != after or any(2 * pad > k for pad, k in zip(before, kernel, strict=True)):
            x, before = functional.pad(x, _pad_torch(before, after), value=-math.inf), [0] * rank
        return pools[rank - 1](x, kernel, stride, before, dilation, ceil)

    return run


def _average_pool(context: _Context) -> Operation:
    pools = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
    kernel = list(context.get("kernel_shape"))
    rank = len(kernel)

    def pool(x: Tensor, *options: Any) -> Tensor:
        # torch has no average pooling of half precision in three dimensions on CPUs.
        wide = x.to(torch.float32) if x.device.type == "cpu" else x
        return pools[rank - 1](wide, *options).to(x.dtype)

    stride = list(context.get("strides", [1] * rank))
    ceil = bool(context.get("ceil_mode", 0))
    count_padding = bool(context.get("count_include_pad", 0))
    if any(n != 1 for n in context.get("dilations", [1])):
        raise _UnknownFormError("with dilations")

    def run(x: Tensor) -> Tensor:
        before, after = _padding(context, x.shape[2:], kernel, stride, [1] * rank)
        if before == after and all(2 * pad <= k for pad, k in zip(before, kernel, strict=True)):
            return pool(x, kernel, stride, before, ceil, count_padding)
        pads = _pad_torch(before, after)
        mean = pool(functional.pad(x, pads), kernel, stride, 0, ceil)
        if count_padding:
            return mean
        share = pool(functional.pad(torch.ones_like(x[:1, :1]), pads), kernel, stride, 0, ceil)
        return mean / share

    return run


def _batch_normalization(context: _Context) -> Operation:
    epsilon = context.get("epsilon", 1e-5)
    if context.get("training_mode", 0):
        raise _UnknownFormError("in training mode")
    return lambda x, scale, bias, mean, variance: functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


def _gemm(context: _Context) -> Operation:
    alpha, beta = context.get("alpha", 1.0), context.get("beta", 1.0)
    turn_a, turn_b = context.get("transA", 0), context.get("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.t() if turn_a else a, b.t() if turn_b else b
        if c is None:
            return alpha * (a @ b)
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return run


def _clip(context: _Context) -> Operation:
    low, high = context.get("min"), context.get("max")

    def run(x: Tensor, least: Tensor | None = None, most: Tensor | None = None) -> Tensor:
        # .tolist() of a weight on the device would wait for it; such limits stay tensors.
        bottom = low if least is None else least.to(x.device)
        top = high if most is None else most.to(x.device)
        if bottom is not None:
            x = torch.clamp(x, min=bottom)
        return x if top is None else torch.clamp(x, max=top)

    return run


def _hard_sigmoid(context: _Context) -> Operation:
    alpha, beta = context.get("alpha", 0.2), context.get("beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0, 1)


def _leaky_relu(context: _Context) -> Operation:
    alpha = context.get("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, alpha)


def _softmax(context: _Context) -> Operation:
    axis = context.get("axis", -1 if context.opset >= 13 else 1)

    def run(x: Tensor) -> Tensor:
        # Up to opset 12 it is over this axis and all after it, by the book; OpenVINO takes this axis alone.
        if context.opset < 13 and math.prod(x.shape[axis % x.dim() + 1 :]) > 1:
            raise ValueError("before opset 13 it is only known over the last axis")
        return torch.softmax(x, axis)

    return run


def _global_pool(reduce: Callable[[Tensor, list[int]], Tensor]) -> Callable[[_Context], Operation]:
    return lambda _: lambda x: reduce(x, list(range(2, x.dim())))


def _reduced(reduce: Callable[..., Tensor]) -> Callable[[_Context], Operation]:
    def maker(context: _Context) -> Operation:
        keep = bool(context.get("keepdims", 1))

        def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
            over = _integers(axes if axes is not None else context.get("axes"))
            if not over and context.get("noop_with_empty_axes", 0):
                return x
            return reduce(x, over or list(range(x.dim())), keepdim=keep)

        return run

    return maker


def _reshape(context: _Context) -> Operation:
    allow_zero = context.get("allowzero", 0)

    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes = _integers(shape)
        if not allow_zero:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


def _flatten(context: _Context) -> Operation:
    axis = context.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        at = axis if axis >= 0 else axis + x.dim()
        return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))

    return run


def _transpose(context: _Context) -> Operation:
    order = context.get("perm")
    return lambda x: x.permute(list(order) if order else list(reversed(range(x.dim()))))


def _squeeze(context: _Context) -> Operation:
    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = _integers(axes if axes is not None else context.get("axes"))
        chosen = [axis % x.dim() for axis in chosen] or [axis for axis, size in enumerate(x.shape) if size == 1]
        wrong = [x.shape[axis] for axis in chosen if x.shape[axis] != 1]
        if wrong:
            raise ValueError(f"an axis of size {wrong[0]} cannot be left out")
        return x.reshape([size for axis, size in enumerate(x.shape) if axis not in chosen])

    return run


def _unsqueeze(context: _Context) -> Operation:
    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        new = _integers(axes if axes is not None else context.get("axes"))
        rank = x.dim() + len(new)
        for axis in sorted(axis % rank for axis in new):
            x = x.unsqueeze(axis)
        return x

    return run


def _concat(context: _Context) -> Operation:
    axis = context.get("axis")

    def run(*parts: Tensor) -> Tensor:
        device = next((part.device for part in parts if part.device.type != "cpu"), parts[0].device)
        return torch.cat([part.to(device) for part in parts], axis)

    return run


def _split(context: _Context) -> Operation:
    axis = context.get("axis", 0)

    def run(x: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
        given = _integers(sizes if sizes is not None else context.get("split"))
        parts = context.get("num_outputs", 0)
        if not given and not parts:
            raise ValueError("it does not say into what")
        return list(torch.split(x, given or math.ceil(x.shape[axis] / parts), axis))

    return run


def _pad(context: _Context) -> Operation:
    mode = context.get("mode", "constant")
    if mode != "constant":
        raise _UnknownFormError(f"in the mode '{mode}'")

    def run(x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        given = _integers(pads if pads is not None else context.get("pads"))
        fill = float(value.reshape(())) if value is not None else context.get("value", 0.0)
        half = len(given) // 2
        before, after = [0] * x.dim(), [0] * x.dim()
        for place, axis in enumerate(_integers(axes) or range(half)):
            before[axis], after[axis] = given[place], given[half + place]
        return functional.pad(x, _pad_torch(before, after), value=fill)

    return run


def _slice(context: _Context) -> Operation:
    def run(
        x: Tensor,
        starts: Tensor | None = None,
        ends: Tensor | None = None,
        axes: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        first = _integers(starts if starts is not None else context.get("starts"))
        last = _integers(ends if ends is not None else context.get("ends"))
        over = _integers(axes if axes is not None else context.get("axes")) or list(range(len(first)))
        by = _integers(steps) or [1] * len(first)
        for axis, start, end, step in zip(over, first, last, by, strict=True):
            size = x.shape[axis]
            picked = range(size)[slice(start, None if step < 0 and end < -size else end, step)]
            if step == 1:
                x = x.narrow(axis, picked.start if picked else 0, len(picked))
            else:
                x = x.index_select(axis, torch.tensor(list(picked), dtype=torch.int64, device=x.device))
        return x

    return run


def _gather(context: _Context) -> Operation:
    axis = context.get("axis", 0)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        at = axis % x.dim()
        flat = indices.reshape(-1).to(x.device, torch.int64)
        flat = torch.where(flat < 0, flat + x.shape[at], flat)
        return x.index_select(at, flat).reshape([*x.shape[:at], *indices.shape, *x.shape[at + 1 :]])

    return run


def _shape(context: _Context) -> Operation:
    start, end = context.get("start", 0), context.get("end")
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _cast(context: _Context) -> Operation:
    to = onnx.helper.tensor_dtype_to_np_dtype(context.get("to"))
    if to.kind == "f" or "float" in to.name:
        return lambda x: x.to(context.dtype)  # one floating-point precision for all
    integer = {"bool": torch.bool, "int32": torch.int32, "uint8": torch.uint8, "int8": torch.int8}
    if to.name != "int64" and to.name not in integer:
        raise _UnknownFormError(f"to {to.name}")
    kind = integer.get(to.name, torch.int64)
    return lambda x: x.to(kind)


def _constant_of_shape(context: _Context) -> Operation:
    tensor = context.get("value")
    value = torch.zeros(1) if tensor is None else torch.from_numpy(numpy_helper.to_array(tensor).copy())

    def run(shape: Tensor) -> Tensor:
        if value.is_floating_point():
            return torch.full(_integers(shape), value.item(), dtype=context.dtype, device=context.device)
        return torch.full(_integers(shape), value.item(), dtype=value.dtype)

    return run


def _expand(_: _Context) -> Operation:
    return lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, tuple(_integers(shape))))


OPERATORS: dict[str, Callable[[_Context], Operation]] = {
    "Add": _two(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": _two(_divide),
    "Dropout": lambda _: lambda x, *_ignored: x,
    "Erf": _one(torch.erf),
    "Exp": _one(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool(lambda x, axes: x.mean(axes, keepdim=True)),
    "GlobalMaxPool": _global_pool(lambda x, axes: x.amax(axes, keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _one(functional.hardswish),
    "Identity": _one(lambda x: x),
    "LeakyRelu": _leaky_relu,
    "MatMul": _two(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _two(torch.mul),
    "Pad": _pad,
    "Pow": _two(torch.pow),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _one(functional.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _one(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _one(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _two(torch.sub),
    "Tanh": _one(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Makers by the names of ONNX operators."""
