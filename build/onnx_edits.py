"""The changes that an ONNX file may need before somebody can use it.

A foreign one: a batch that is free, and logits in place of a softmax. A strict parser: constants as numbers, and 2-D
pools in place of 3-D ones. All change a graph by its pattern alone; whether the changed network still answers as the
old one did is for the caller to check, by running both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    constants = _constants(model)
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


def fold_constants(model: Any) -> bool:
    """Put numbers in the place of nodes that compute them from constants alone, in place; False if there are none.

    torch writes the padding of a shortcut of type A as eight nodes around two constants.
    """
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    folded: list[Any] = []
    for node in graph.node:  # in the order they run, as ONNX has it
        if node.op_type == "Constant" or all(name in known for name in node.input if name):
            folded.append(node)
            known.update(node.output)
    if all(node.op_type == "Constant" for node in folded):
        return False
    kept = [node for node in graph.node if node not in folded]
    needed = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    outputs = [name for node in folded for name in node.output if name in needed]
    read = {name for node in folded for name in node.input}
    alone = onnx.helper.make_graph(
        folded,
        "constants",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs],
        [tensor for tensor in graph.initializer if tensor.name in read],
    )
    evaluator = ReferenceEvaluator(onnx.helper.make_model(alone, opset_imports=model.opset_import))
    for name, value in zip(outputs, evaluator.run(None, {}), strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))
    del graph.node[:]
    graph.node.extend(kept)
    return True


def flatten_global_pools(model: Any, clip: Sequence[int]) -> int:
    """Make 3-D pools over all of time and space 2-D ones over ``[T, H·W]``, in place; how many there were.

    A mean over ``[n, c, t, h, w]`` is one over ``[n, c, t, h·w]``. Taken for such a pool are GlobalAveragePool,
    ReduceMean over the last three axes, and AveragePool with a kernel as large as its input; one whose input's sizes
    cannot be told is left as it is.

    Args:
        model: of a network in the layout ``NCDHW``.
        clip: the shape of its input without the batch.
    """
    import onnx

    described = onnx.ModelProto()
    described.CopyFrom(model)
    (given,) = inputs(described)
    for dim, length in zip(_dims(given)[1:], clip, strict=True):
        dim.dim_value = length
    del described.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(described, data_prop=True).graph
    shapes = {value.name: [dim.dim_value for dim in _dims(value)] for value in (*inferred.value_info, *inferred.input)}
    constants = _constants(model)
    nodes: list[Any] = []
    count = 0
    for node in model.graph.node:
        shape = shapes.get(node.input[0], []) if node.input else []
        if len(shape) != 5 or not all(shape[1:]) or not _is_global_mean(node, shape, constants):
            nodes.append(node)
            continue
        nodes.extend(_flat_pool(model, node, shape, f"clipmux_pool_{count}"))
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return count


def _is_global_mean(node: Any, shape: Sequence[int], constants: Mapping[str, Any]) -> bool:
    """Whether a node takes the mean over the last three of five axes."""
    from onnx import helper, numpy_helper

    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "AveragePool":
        return list(options["kernel_shape"]) == list(shape[2:]) and not any(options.get("pads", ()))
    if node.op_type == "ReduceMean":
        axes = options.get("axes", ())
        if len(node.input) > 1 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        return sorted(axis % 5 for axis in axes) == [2, 3, 4]
    return False


def _flat_pool(model: Any, node: Any, shape: Sequence[int], name: str) -> list[Any]:
    """Nodes that give what ``node``, a mean over all of time and space, gives: the batch stays free."""
    from onnx import helper, numpy_helper

    channels, frames, height, width = shape[1:]
    keeps = all(attribute.i for attribute in node.attribute if attribute.name == "keepdims")
    before, after = [-1, channels, frames, height * width], [-1, channels, *([1, 1, 1] if keeps else [])]
    for which, sizes in (("before", before), ("after", after)):
        constant = numpy_helper.from_array(np.array(sizes, np.int64), f"{name}_{which}")
        model.graph.initializer.append(constant)
    return [
        helper.make_node("Reshape", [node.input[0], f"{name}_before"], [f"{name}_flat"], name=f"{name}_flatten"),
        helper.make_node("GlobalAveragePool", [f"{name}_flat"], [f"{name}_mean"], name=name),
        helper.make_node("Reshape", [f"{name}_mean", f"{name}_after"], list(node.output), name=f"{name}_restore"),
    ]


def _constants(model: Any) -> dict[str, Any]:
    """Constants by name, as ``TensorProto``: initializers and the tensors of Constant nodes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return constants


def inputs(model: Any) -> list[Any]:
    """The inputs that a caller has to give; old files list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim
