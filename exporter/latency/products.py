"""What a runtime itself reaches in a type that numpy multiplies slowly or not at all: fp16, bf16, int8.

The runtime is asked as it is for artifacts: it compiles a graph of one product, and says of its layers what they ran in
and how long they took. A type that it did not run in has no peak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, numpy_helper

from exporter import registry
from exporter.graph import Graph
from exporter.isolate import Channel, Limits, call
from exporter.manifest import TargetInfo
from exporter.target import BF16_OPSET, HINT, INTEGER, MIXED, QDQ, STORED, TYPES, Layer, Options

# Each look compiles anew, as every look at layers does, and gives a median; the best look is the peak.
LOOKS, RUNS = 4, 5
TRUSTED_SECONDS = 120.0
ELEMENTS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Kind:
    """A product of a kind, so large that what is not arithmetic is nothing.

    Attributes:
        call: the operator and its attributes.
        x, w: the shapes of its operands; ``y`` has that of ``x``.
        multiplications: of one run.
    """

    call: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    multiplications: int


# A runtime may be good at one of them and bad at the other: OpenVINO without VNNI is, in eight bits.
KINDS = {
    "matrices": Kind("MatMul", (1024, 1024), (1024, 1024), 1024**3),
    "convolution": Kind("Conv <pads = [1, 1, 1, 1]>", (1, 256, 28, 28), (256, 256, 3, 3), 28**2 * 256**2 * 9),
}
HEAD = """<ir_version: 10, opset_import: ["": {opset}]> product (float{shape} x) => (float{shape} y) """
PLAIN = "y = {call} (x, w)"
TYPED = """
    a = Cast <to = {element}> (x)
    b = Cast <to = {element}> (w)
    c = {call} (a, b)
    y = Cast <to = 1> (c)
"""
SCALED = """
    q = QuantizeLinear (x, s, z)
    a = DequantizeLinear (q, s, z)
    b = DequantizeLinear (w, s)
    c = {call} (a, b)
    r = QuantizeLinear (c, s, z)
    y = DequantizeLinear (r, s, z)
"""


@dataclass(frozen=True)
class Product:
    """A type to be multiplied in.

    Attributes:
        target: whose runtime multiplies.
        precision: the type of the operands.
        way: how a graph comes to it, as an artifact's does.
    """

    target: str
    precision: str
    way: str


def products_of(infos: Sequence[TargetInfo]) -> list[Product]:
    """What layers of these artifacts may be held to, beside float32's."""
    found: dict[Product, None] = {}
    for info in infos:
        if info.precision in ("fp32", "tf32") or info.way == STORED:  # what is stored is made float32 again
            continue
        found[Product(info.target, info.precision, QDQ if info.way in INTEGER else info.way)] = None
        if info.way == MIXED:
            found[Product(info.target, "bf16", HINT)] = None
    return list(found)


def reached(product: Product, threads: int, folder: Path) -> float | None:
    """1e9 operations a second, at best; None where the runtime does not multiply in that type here.

    Args:
        product: what is multiplied.
        threads: of the runtime.
        folder: for graphs, what is compiled of them, and the log of the child that does it.
    """
    name = f"product-{product.target}-{product.precision}-{product.way}"
    (folder / name).mkdir()
    outcome = call(
        "exporter.latency.products:measured", {**asdict(product), "threads": threads, "folder": str(folder / name)},
        limits=Limits(seconds=TRUSTED_SECONDS), log=folder / f"{name}.log", stage="peaks",
    )  # fmt: skip
    # A profile is worth no less for it: such layers have speeds and no limit.
    return None if outcome.error is not None else outcome.value["gflops"]


def measured(request: Mapping[str, Any], channel: Channel) -> dict[str, Any]:  # noqa: ARG001  # the shape of a child
    """Child: ``{"gflops": 1e9 operations a second, or null}`` of a product."""
    product = Product(request["target"], request["precision"], request["way"])
    speeds = [_speed(product, kind, request["threads"], Path(request["folder"]) / name) for name, kind in KINDS.items()]
    return {"gflops": max(speeds) or None}


def _speed(product: Product, kind: Kind, threads: int, folder: Path) -> float:
    """1e9 operations a second of one kind, or 0 where it ran in another type."""
    (folder / "compiled").mkdir(parents=True)
    graph = Graph(folder / "product.onnx")
    onnx.save(graph_of(product.precision, product.way, kind), graph.path)
    target, options = registry.target(product.target), Options(product.precision, threads, way=product.way)
    feeds = {"x": _noise(kind.x)}
    with target.open(target.compile(graph, options, folder / "compiled"), options) as runner:
        runner.infer(feeds, check_inputs=False)
        looks = [_slowest(target.layers(runner, feeds, RUNS)) for _ in range(LOOKS)]
    spent = [layer.ns for layer in looks if layer.precision == product.precision and layer.ns]
    return 2 * kind.multiplications / min(spent) if spent else 0.0


def _slowest(layers: Sequence[Layer]) -> Layer:
    """The product: all else that such a graph does is little beside it."""
    return max(layers, key=lambda layer: layer.ns)


def graph_of(precision: str, way: str, kind: Kind) -> onnx.ModelProto:
    """A product of what comes in with a weight; float32 outside, and inside as graphs of that precision and way are."""
    weights, body = {"w": _noise(kind.w)}, TYPED if way == TYPES else PLAIN
    if way == QDQ:
        body = SCALED
        narrow = (_noise(kind.w) * 64).astype(np.int8)
        weights = {"w": narrow, "s": np.array(1 / 64, np.float32), "z": np.array(128, np.uint8)}
    head = HEAD.format(opset=BF16_OPSET, shape=list(kind.x))
    model = onnx.parser.parse_model(head + "{" + body.format(call=kind.call, element=ELEMENTS.get(precision)) + "}")
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    for node in model.graph.node:  # by which profilers tell layers apart
        node.name = node.output[0]
    return model


def _noise(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.0, 1.0, prod(shape)).reshape(shape).astype(np.float32)
