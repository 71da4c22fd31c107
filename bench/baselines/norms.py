"""Batch norms taken apart again from the convolutions that the exporter folded them into.

An eager network as the reference has it computes its batch norms one by one; they are a fifth of its time. A model
folder's ONNX lacks them: folded, a norm is the convolution's bias and a factor in its weights. Here that bias becomes a
norm again, with the same shape of work and the same answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipmux.build.onnx_edits import load, save

EPSILON = 1e-5


def with_norms(network: Path, output: Path) -> int:
    """Write a network whose every convolution with a bias is one without, followed by a batch norm.

    Args:
        network: an ONNX file in which all such convolutions had a norm: a 3D-ResNet's.
        output: the file to write.

    Returns:
        How many norms there are now.
    """
    from onnx import helper, numpy_helper

    model = load(network, "the baseline 'reference'")
    graph = model.graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    nodes: list[Any] = []
    norms = 0
    constants: dict[str, float] = {}
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[2] not in sizes:
            continue
        bias, result = node.input[2], node.output[0]
        one, zero, rest = (f"norms_{name}_{sizes[bias]}" for name in ("one", "zero", "rest"))
        constants |= {one: 1.0, zero: 0.0, rest: 1.0 - EPSILON}
        between = f"{result}_before_norm"
        del node.input[2]
        node.output[0] = between
        # scale 1, the bias, mean 0, and a variance that with epsilon is 1: torch takes no epsilon of 0 on GPUs
        nodes.append(
            helper.make_node("BatchNormalization", [between, one, bias, zero, rest], [result], epsilon=EPSILON)
        )
        norms += 1
    for name, value in constants.items():
        size = int(name.rpartition("_")[2])
        graph.initializer.append(numpy_helper.from_array(np.full(size, value, np.float32), name))
    del graph.node[:]
    graph.node.extend(nodes)
    save(model, output)
    return norms
