"""Graphs whose weights lie in other files: good ones, and those that name what they should not."""

from __future__ import annotations

import numpy as np
import onnx

FLOAT = onnx.TensorProto.FLOAT


def tensor(name: str, location: str, offset: int = 0, sizes: tuple[int, ...] = (4, 8), **more: str) -> onnx.TensorProto:
    """A float tensor whose values lie elsewhere."""
    made = onnx.TensorProto(name=name, data_type=FLOAT, dims=sizes, data_location=onnx.TensorProto.EXTERNAL)
    said = {"location": location, "offset": str(offset), "length": str(4 * int(np.prod(sizes))), **more}
    for key, value in said.items():
        made.external_data.add(key=key, value=value)
    return made


def model(*tensors: onnx.TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    y = onnx.helper.make_tensor_value_info("y", FLOAT, [4, 8])
    last = onnx.helper.make_node("Identity", [tensors[0].name if tensors else "x"], ["y"])
    return onnx.helper.make_model(onnx.helper.make_graph([*nodes, last], "g", [], [y], list(tensors)))
