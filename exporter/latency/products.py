"""What a runtime itself reaches in a type that numpy multiplies slowly or not at all: fp16, bf16, int8.

The runtime is asked as it is for artifacts: it is given a graph of one product, and says of its layers what they ran in
and how long they took. A type that it did not run in has no peak. The graphs lie in ``products/``, since a device has
nothing that could make them; ``python -m exporter.latency.products`` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter import registry
from exporter.graph import Graph
from exporter.isolate import Channel, Limits, call
from exporter.manifest import TargetInfo
from exporter.target import BF16_OPSET, HINT, INTEGER, MIXED, QDQ, STORED, TYPES, Layer, Options

# Each look compiles anew, as every look at layers does, and gives a median; the best look is the peak.
LOOKS, RUNS = 4, 5
TRUSTED_SECONDS = 120.0
FOLDER = Path(__file__).parent / "products"
ELEMENTS = {"fp16": 10, "bf16": 16}  # of ONNX's TensorProto.DataType


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
# A weight is written as the one value that it is full of, which runtimes unfold when they load it.
HEAD = """<ir_version: 10, opset_import: ["": {opset}]> product (float{x} x) => (float{x} y)
    <int64[{rank}] shape = {{{w}}}> {{ {body} }}"""
PLAIN = """
    w = ConstantOfShape <value = float[1] {{0.5}}> (shape)
    y = {call} (x, w)
"""
TYPED = """
    w = ConstantOfShape <value = float[1] {{0.5}}> (shape)
    a = Cast <to = {element}> (x)
    b = Cast <to = {element}> (w)
    c = {call} (a, b)
    y = Cast <to = 1> (c)
"""
SCALED = """
    w = ConstantOfShape <value = int8[1] {{32}}> (shape)
    s = Constant <value = float {{0.015625}}> ()
    z = Constant <value = uint8 {{128}}> ()
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
    folders = {name: Path(request["folder"]) / name for name in KINDS}
    for folder in folders.values():
        folder.mkdir()
    speeds = [_speed(product, name, request["threads"], folder) for name, folder in folders.items()]
    return {"gflops": max(speeds) or None}


def _speed(product: Product, name: str, threads: int, folder: Path) -> float:
    """1e9 operations a second of one kind, or 0 where it ran in another type."""
    kind, graph = KINDS[name], Graph(FOLDER / f"{_name(product.precision, product.way, name)}.onnx")
    target, options = registry.target(product.target), Options(product.precision, threads, way=product.way)
    feeds = {"x": np.random.default_rng(0).uniform(-1.0, 1.0, kind.x).astype(np.float32)}
    # What runs graphs as they are needs no tools for it, which a device has not.
    opened = (
        target.open_graph(graph, options)
        if target.runs_graphs is not None
        else target.open(target.compile(graph, options, folder), options)
    )
    with opened as runner:
        runner.infer(feeds, check_inputs=False)
        looks = [_slowest(target.layers(runner, feeds, RUNS)) for _ in range(LOOKS)]
    spent = [layer.ns for layer in looks if layer.precision == product.precision and layer.ns]
    return 2 * kind.multiplications / min(spent) if spent else 0.0


def _slowest(layers: Sequence[Layer]) -> Layer:
    """The product: all else that such a graph does is little beside it."""
    return max(layers, key=lambda layer: layer.ns)


def _name(precision: str, way: str, kind: str) -> str:
    """Which graph: outside of it all is float32, inside as graphs of that precision and way are."""
    return f"{precision if way in (TYPES, QDQ) else 'plain'}-{kind}"


def text_of(precision: str, way: str, kind: Kind) -> str:
    """The graph of a product of what comes in with a weight, in ONNX's own text."""
    body = {TYPES: TYPED, QDQ: SCALED}.get(way, PLAIN).format(call=kind.call, element=ELEMENTS.get(precision))
    w = ", ".join(map(str, kind.w))
    return HEAD.format(opset=BF16_OPSET, x=list(kind.x), rank=len(kind.w), w=w, body=body)


def graphs() -> dict[str, bytes]:
    """Every graph as it lies in ``products/``, by file name."""
    import onnx.parser

    found = {}
    for kind, of in KINDS.items():
        for precision, way in (("fp32", ""), ("fp16", TYPES), ("bf16", TYPES), ("int8", QDQ)):
            model = onnx.parser.parse_model(text_of(precision, way, of))
            for node in model.graph.node:  # by which profilers tell layers apart
                node.name = node.output[0]
            found[f"{_name(precision, way, kind)}.onnx"] = model.SerializeToString(deterministic=True)
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, content in graphs().items():
        (FOLDER / file).write_bytes(content)
