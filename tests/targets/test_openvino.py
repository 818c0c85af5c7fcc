"""What OpenVINO says of its layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from exporter import registry
from exporter.graph import Graph
from exporter.target import QDQ, Layer, Options

# A product with a bias, in eight bits: the plugin names it after what the frontend split off, and fuses rescaling of
# its own making into it.
SCALED = """<ir_version: 10, opset_import: ["": 22]> g (float[1, 8, 16, 16] x) => (float[1, 8, 16, 16] y) {
    [down] q = QuantizeLinear (x, s, z)
    [up] a = DequantizeLinear (q, s, z)
    [weight] b = DequantizeLinear (w, s)
    [product] c = Conv <pads = [1, 1, 1, 1]> (a, b, bias)
    [below] r = QuantizeLinear (c, s, z)
    [last] y = DequantizeLinear (r, s, z)
}"""


def layers(text: str, folder: Path, options: Options) -> list[Layer]:
    draw = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    constants = {"w": draw.integers(-64, 64, (8, 8, 3, 3)).astype(np.int8), "bias": np.ones(8, np.float32),
                 "s": np.array(1 / 64, np.float32), "z": np.array(128, np.uint8)}  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph = Graph(folder / "g.onnx")
    onnx.save(model, graph.path)
    target = registry.target("openvino")
    feeds = {"x": draw.standard_normal((1, 8, 16, 16)).astype(np.float32)}
    with target.open(target.compile(graph, options, folder), options) as runner:
        runner.infer(feeds, check_inputs=False)
        return target.layers(runner, feeds, 3)


def test_a_layer_is_of_the_graphs_nodes_and_of_no_others(tmp_path: Path) -> None:
    found = layers(SCALED, tmp_path, Options("int8", 1, way=QDQ))
    (product,) = [layer for layer in found if "product" in layer.nodes]
    assert product.precision == "int8" and product.kind == "Convolution"
    known = {"down", "up", "weight", "product", "below", "last"}
    assert set(product.nodes) <= known, "nothing that the plugin made of it"
