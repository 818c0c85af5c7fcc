"""A small graph with all that a search meets: constants, a branch, a product, a sum, integers for shapes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporter.graph import SCOPE, SOURCE


def graph() -> onnx.ModelProto:
    """``x (2, T, 4)`` to ``y (2, T, 4)`` in nine nodes, two of which come from constants alone."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(size=(4, 4)), "b0": rng.normal(size=4), "w1": rng.normal(size=(4, 4)), "slope": np.array(0.1),
    }  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["two"], name="two", value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Mul", ["b0", "two"], ["b2"], name="twice"),
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Add", ["a", "b2"], ["b"], name="bias"),
        helper.make_node("Softmax", ["b"], ["c"], name="soft", axis=-1),
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Sub", ["b", "c"], ["d"], name="less"),
        helper.make_node("MatMul", ["d", "w1"], ["e"], name="second"),
        helper.make_node("Reshape", ["e", "s"], ["y"], name="last"),
    ]
    for number, node in enumerate(nodes):
        node.metadata_props.add(key=SCOPE, value=f"['', 'block.{number}', '{node.name}']")
        node.metadata_props.add(key=SOURCE, value=f"net/model.py:{number}")
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "small",
        [value("x", TensorProto.FLOAT, [2, "T", 4])],
        [value("y", TensorProto.FLOAT, [2, "T", 4])],
        initializers,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def feeds(steps: int = 3) -> dict[str, np.ndarray]:
    """What the graph is given."""
    return {"x": np.random.default_rng(1).normal(size=(2, steps, 4)).astype(np.float32)}


def named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """A node by its name."""
    return next(node for node in model.graph.node if node.name == name)
