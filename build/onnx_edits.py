"""The two changes that a foreign ONNX file may need: a batch that is free, and logits in place of a softmax.

Both change a graph by its pattern alone; whether the changed network still answers as the old one did is for the caller
to check, by running both.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from clipmux.engine.errors import ModelError, UsageError

BATCH = "n"
"""What the free batch is called in the file."""

# What may stand between a softmax and the output: it moves numbers about, or takes means over axes of length one (a
# fully convolutional head); a mean over more would be one of probabilities, which the check by running finds out.
_AFTER_SOFTMAX = frozenset(
    ("AveragePool", "Cast", "Dropout", "Flatten", "GlobalAveragePool", "Identity", "ReduceMean", "Reshape", "Squeeze")
) | {"Transpose", "Unsqueeze"}


def load(path: Path, why: str) -> Any:
    """An ONNX file as ``onnx.ModelProto``, with weights that lie in files beside it.

    Raises:
        UsageError: onnx is not installed; ``why`` says what it is needed for.
        ModelError: the file is not ONNX, or its weights are missing.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UsageError(f"{why} needs onnx: pip install 'clipmux[torch]'")
    import onnx

    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf and onnx raise many kinds for foreign bytes
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"'{path}' cannot be read as ONNX ({reason[:160]}): export it again") from None


def save(model: Any, path: Path) -> None:
    """Write a model as one file, weights inside.

    Raises:
        ModelError: it is above the 2 GiB that one ONNX file can hold.
    """
    import onnx

    try:
        onnx.save(model, str(path))
    except (ValueError, RuntimeError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"the network cannot be written as one ONNX file ({reason[:160]}): it holds 2 GiB") from None


def free_batch(model: Any) -> None:
    """Make the first axis of the input and of the outputs free, in place.

    A Reshape to a constant shape that begins with the old batch is told to keep its input's first axis instead: with
    batch 1, ``[1, -1]`` becomes ``[0, -1]``.
    """
    from onnx import numpy_helper, shape_inference

    (clip,) = inputs(model)
    batch = clip.type.tensor_type.shape.dim[0].dim_value
    inferred = shape_inference.infer_shapes(model).graph
    first_axis = {value.name: dims[0].dim_value for value in inferred.value_info if (dims := _dims(value))}
    for end in (clip, *model.graph.output):
        if dims := _dims(end):
            dims[0].dim_param = BATCH
    del model.graph.value_info[:]  # intermediate shapes, as they were with the old batch
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if shape.size < 2 or shape[0] != batch or first_axis.get(node.input[0], batch) != batch:
            continue
        if any(attribute.i for attribute in node.attribute):  # allowzero: 0 would mean no elements
            continue
        shape[0] = 0
        name = f"clipmux_shape_{number}"  # one of its own: others may use the old constant
        model.graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name


def drop_softmax(model: Any) -> bool:
    """Take the last Softmax out, in place; False if none is found where only shapes follow it."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in _AFTER_SOFTMAX:
        node = makers.get(node.input[0])
    if node is None or node.op_type != "Softmax":
        return False
    before, after = node.input[0], node.output[0]
    if after == model.graph.output[0].name:  # an output keeps its name: what made the logits now makes it
        for name_list in [*(other.output for other in model.graph.node), *(other.input for other in model.graph.node)]:
            for place, name in enumerate(name_list):
                if name == before:
                    name_list[place] = after
    else:
        for other in model.graph.node:
            for place, name in enumerate(other.input):
                if name == after:
                    other.input[place] = before
    model.graph.node.remove(node)
    return True


def inputs(model: Any) -> list[Any]:
    """The inputs that a caller has to give; old files list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim
