"""What TensorRT's ONNX parser refuses or gets wrong, per version, with the source of each fact.

Versions run from 10.3 (JetPack 6.2) to 11.4. What is not known of a version in between is taken from the nearest older
one that is documented. ``operators.md`` is the support matrix of onnx-tensorrt (https://github.com/onnx/onnx-tensorrt/
blob/main/docs/operators.md), read as of 10.15; its ``Changelog.md`` says since when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.target import Problem

if TYPE_CHECKING:
    import onnx

Version = tuple[int, int]

VERSIONS: dict[str, Version] = {"10.3": (10, 3), "10.16": (10, 16), "11.4": (11, 4)}
NEWEST = "11.4"

MATRIX = "onnx-tensorrt docs/operators.md, 10.15"
CHANGES = "onnx-tensorrt docs/Changelog.md"

# The opset our graphs are written in: the newest that every version reads, and where GridSample is right
# (NVIDIA/TensorRT#4646: wrong at 20, right at 18, seen with 10.13).
OPSET = 18
# (since, newest opset). 10.15 and 11.2 say 9 to 24; for 10.3 the ONNX release it was built with is the bound.
OPSETS: tuple[tuple[Version, int], ...] = (((10, 3), 20), ((10, 6), 22), ((10, 15), 24))
OLDEST_OPSET = 9

# Operators of the matrix that are marked unsupported in every version.
UNSUPPORTED = frozenset({
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad",
    "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder",
    "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss",
    "Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch",
    "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit",
    "TfIdfVectorizer", "Unique",
})  # fmt: skip

# Operators of the matrix that are supported, perhaps within the bounds that FACTS has.
SUPPORTED = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Attention",
    "AveragePool", "BatchNormalization", "BlackmanWindow", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat",
    "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum", "DeformConv", "DepthToSpace",
    "DequantizeLinear", "Div", "Dropout", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten",
    "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "HammingWindow", "HannWindow",
    "HardSigmoid", "HardSwish", "Hardmax", "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LpNormalization", "LpPool",
    "MatMul", "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul", "Neg",
    "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear",
    "RMSNormalization", "RNN", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign",
    "RotaryEmbedding", "Round", "STFT", "Scan", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split",
    "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu", "Tile", "TopK", "Transpose",
    "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
})  # fmt: skip

# The first version that has an operator, where that is later than 10.3.
SINCE: Mapping[str, tuple[Version, str]] = {
    "Attention": ((10, 15), MATRIX),
    "BlackmanWindow": ((10, 4), CHANGES),
    "HammingWindow": ((10, 4), CHANGES),
    "HannWindow": ((10, 4), CHANGES),
    "RMSNormalization": ((10, 15), MATRIX),
    "RotaryEmbedding": ((10, 15), MATRIX),
    "STFT": ((10, 5), CHANGES),
    "TensorScatter": ((10, 15), MATRIX),
}


@dataclass(frozen=True)
class Node:
    """A node with what a fact may ask of it.

    Attributes:
        node: the node itself.
        model: all of the graph around it.
        opset: the model's.
    """

    node: onnx.NodeProto
    model: Model
    opset: int

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        import onnx

        found = {a.name: onnx.helper.get_attribute_value(a) for a in self.node.attribute}
        value = found.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, index: int) -> bool:
        """Whether an input is absent or known when the engine is built."""
        return index >= len(self.node.input) or not self.node.input[index] or self.node.input[index] in self.model.known

    def rank(self, index: int = 0) -> int | None:
        """How many axes an input has, where that is known."""
        return self.model.ranks.get(self.node.input[index])

    def kind(self, index: int = 0) -> int:
        """The element type of an input, 0 where it is not known."""
        return self.model.kinds.get(self.node.input[index], 0)


@dataclass(frozen=True)
class Model:
    """What is known of the tensors of a graph: ranks, element types, which are constants; and ways its sums run."""

    ranks: Mapping[str, int]
    kinds: Mapping[str, int]
    known: frozenset[str]
    sums: int


@dataclass(frozen=True)
class Fact:
    """One thing that the parser, or what it builds, refuses or gets wrong.

    Attributes:
        operators: which nodes to look at.
        holds: whether it applies to a node.
        reason: what happens.
        remedy: what to do.
        source: who says so.
        since: the first version it holds in.
        until: the first version it no longer holds in; None while nothing says that it was mended.
    """

    operators: tuple[str, ...]
    holds: Callable[[Node], bool]
    reason: str
    remedy: str
    source: str
    since: Version = (10, 3)
    until: Version | None = None

    def applies(self, version: Version) -> bool:
        """Whether it holds in that version."""
        return self.since <= version and (self.until is None or version < self.until)


REDUCTIONS = tuple(f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum",
                                                "SumSquare"))  # fmt: skip
FLOAT, HALF, BFLOAT16, DOUBLE, INT8, UINT8, INT32, INT64, BOOL = 1, 10, 16, 11, 3, 2, 6, 7, 9  # onnx.TensorProto
RESIZE_MODES = {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}

FACTS: tuple[Fact, ...] = (
    Fact(
        ("DequantizeLinear",), lambda n: n.kind() == UINT8,
        "quantised values are symmetric: int8 with a zero point of 0", "quantise to int8", MATRIX,
    ),
    Fact(
        ("QuantizeLinear", "DequantizeLinear"), lambda n: not n.constant(1),
        "scales must be known when the engine is built", "make them constants", MATRIX,
    ),
    Fact(
        ("GridSample",), lambda n: n.rank() not in (None, 4),
        "GridSample takes a 4-D input alone", "sample plane by plane, or look up with Gather", MATRIX,
    ),
    Fact(
        ("GridSample",), lambda n: n.opset >= 20,
        "GridSample of opset 20 gives wrong values, without a warning", "write the graph in opset 18",
        "NVIDIA/TensorRT#4646, seen with 10.13", since=(10, 8),
    ),
    Fact(
        ("GridSample",), lambda n: n.kind() == BFLOAT16,
        "GridSample has no bf16", "keep it in fp32", MATRIX,
    ),
    Fact(
        ("CumSum",), lambda n: n.model.sums > 1,
        "several CumSum of one graph act as if they all had one axis and direction",
        "write it as a product with a triangle of ones", "NVIDIA/TensorRT#4551, #4513", since=(10, 8),
    ),
    Fact(
        ("CumSum",), lambda n: not n.constant(1),
        "the axis of CumSum must be known when the engine is built, before 10.8", "make it a constant", CHANGES,
        until=(10, 8),
    ),
    Fact(
        ("Pow",), lambda n: n.kind(1) in (INT32, INT64),
        "the exponent of Pow is no integer before 10.8", "cast it to the type of the base", CHANGES, until=(10, 8),
    ),
    Fact(
        REDUCTIONS, lambda n: n.opset >= 18 and not n.constant(1),
        "the axes of a reduction must be constants", "make them constants", MATRIX,
    ),
    Fact(
        ("AveragePool", "LpPool", "MaxPool"), lambda n: any(d != 1 for d in n.attribute("dilations", [])),
        "pooling has no dilations", "write it with Slice and Max, or without dilations", MATRIX,
    ),
    Fact(
        ("AveragePool", "LpPool", "MaxPool"), lambda n: n.rank() not in (None, 4, 5),
        "pooling is 2-D or 3-D", "give the input one more axis of size 1", MATRIX,
    ),
    Fact(
        ("MaxPool",), lambda n: len(n.node.output) > 1 and bool(n.node.output[1]),
        "MaxPool gives no indices", "leave the second output out", MATRIX,
    ),
    Fact(
        ("Conv", "ConvTranspose"), lambda n: n.rank() not in (None, 3, 4, 5),
        "convolutions are 1-D to 3-D", "reshape the input", MATRIX,
    ),
    Fact(
        ("Resize",), lambda n: n.attribute("mode", "nearest") == "cubic",
        "Resize is nearest or linear", "use one of them, or write cubic as convolutions", MATRIX,
    ),
    Fact(
        ("Resize",), lambda n: n.attribute("antialias", 0) != 0,
        "Resize does not antialias", "blur with a convolution before it", MATRIX,
    ),
    Fact(
        ("Resize",), lambda n: n.attribute("coordinate_transformation_mode", "half_pixel") not in RESIZE_MODES,
        "this coordinate mode of Resize is unknown", f"use one of {', '.join(sorted(RESIZE_MODES))}", MATRIX,
    ),
    Fact(
        ("ScatterND",), lambda n: n.attribute("reduction", "none") != "none",
        "ScatterND has no reduction", "scatter, then reduce", MATRIX,
    ),
    Fact(
        ("LSTM",), lambda n: bool(n.attribute("layout", 0)) or bool(n.attribute("input_forget", 0)),
        "LSTM has layout 0 and no input_forget", "transpose around it", MATRIX,
    ),
    Fact(
        ("LayerNormalization",), lambda n: len([o for o in n.node.output if o]) > 1,
        "LayerNormalization gives its first output alone", "compute mean and deviation apart", MATRIX,
    ),
    Fact(
        ("TopK",), lambda n: n.attribute("sorted", 1) != 1,
        "TopK sorts", "set sorted to 1", MATRIX,
    ),
    Fact(
        ("OneHot",), lambda n: not n.constant(1),
        "the depth of OneHot must be known when the engine is built", "make it a constant", MATRIX,
    ),
    Fact(
        ("Squeeze", "Unsqueeze"), lambda n: not n.constant(1),
        "the axes must be constants", "make them constants", MATRIX,
    ),
    Fact(
        ("Pad",), lambda n: not n.constant(3),
        "the axes of Pad must be constants before 10.4", "make them constants", CHANGES, until=(10, 4),
    ),
    Fact(
        ("STFT",), lambda n: not (n.constant(1) and n.constant(2)),
        "frame step and window of STFT must be constants", "make them constants", MATRIX, since=(10, 5),
    ),
    Fact(
        ("Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Conv", "ConvTranspose"), lambda n: n.kind() == DOUBLE,
        "DOUBLE is narrowed to FLOAT, beyond its range clamped", "compute in float32", MATRIX,
    ),
    Fact(
        ("CumSum",), lambda n: n.kind() in (INT32, INT64),
        "CumSum takes floats alone", "cast around it", MATRIX,
    ),
    Fact(
        ("Concat", "Expand", "Gather", "Reshape", "Slice", "Split", "Tile", "Transpose", "Where"),
        lambda n: n.kind() in (INT8, UINT8),
        "8-bit integers are quantised values or graph inputs and outputs, no data to move", "cast to int32", MATRIX,
    ),
    Fact(
        ("Resize", "Sqrt", "Exp", "Softmax", "Sigmoid", "Tanh"), lambda n: n.kind() in (INT32, INT64),
        "it takes floats alone", "cast before it", MATRIX,
    ),
)  # fmt: skip


# Every version in which something changes: what is known of a graph is written down for each of them.
COLUMNS: dict[str, Version] = {
    ".".join(map(str, version)): version
    for version in sorted(
        {*VERSIONS.values(), *(since for since, _ in OPSETS), *(since for since, _ in SINCE.values()),
         *(fact.since for fact in FACTS), *(fact.until for fact in FACTS if fact.until is not None)}
    )
}  # fmt: skip


def problems(model: onnx.ModelProto, version: Version) -> list[Problem]:
    """Every node that a version refuses or gets wrong, each with its reason, its remedy and who says so."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    found = [*_opset_problems(opset, version)]
    known = _known(model)
    for node in _nodes(model.graph):
        found += _operator_problems(node, version)
        found += [
            Problem(node.name or node.op_type, f"{fact.reason} ({fact.source})", fact.remedy)
            for fact in FACTS
            if node.op_type in fact.operators and fact.applies(version) and fact.holds(Node(node, known, opset))
        ]
    return found


def column(version: Version) -> str:
    """The newest column of the table that is not newer than a version."""
    return max((name for name, known in COLUMNS.items() if known <= version), key=lambda name: COLUMNS[name])


def newest_opset(version: Version) -> int:
    """The newest opset that a version reads."""
    return max(opset for since, opset in OPSETS if since <= version)


def _opset_problems(opset: int, version: Version) -> Iterator[Problem]:
    newest = newest_opset(version)
    if not OLDEST_OPSET <= opset <= newest:
        named = ".".join(map(str, version))
        yield Problem("opset", f"{opset} is not within {OLDEST_OPSET}..{newest} of TensorRT {named} ({MATRIX})",
                      f"write the graph in opset {OPSET}")  # fmt: skip


def _operator_problems(node: onnx.NodeProto, version: Version) -> Iterator[Problem]:
    name, kind, named = node.name or node.op_type, node.op_type, ".".join(map(str, version))
    if node.domain not in ("", "ai.onnx"):
        yield Problem(name, f"{node.domain}.{kind} needs a plugin", "write it with ONNX operators")
    elif kind in UNSUPPORTED or kind not in SUPPORTED:
        yield Problem(name, f"TensorRT's parser has no {kind} ({MATRIX})", "write it with operators that it has")
    elif kind in SINCE and version < SINCE[kind][0]:
        since = ".".join(map(str, SINCE[kind][0]))
        yield Problem(name, f"{kind} came with TensorRT {since}, this is for {named} ({SINCE[kind][1]})",
                      "build with a newer one, or write it with older operators")  # fmt: skip


def inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with the types and shapes that follow; where they contradict, what is declared is what is known."""
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:
        return model.graph


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those inside If, Loop and Scan too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(inner)


def _known(model: onnx.ModelProto) -> Model:
    graph = inferred(model)
    infos = [*graph.value_info, *graph.input, *graph.output]
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in infos if v.type.tensor_type.HasField("shape")}
    kinds = {v.name: v.type.tensor_type.elem_type for v in infos}
    constants = {t.name for t in graph.initializer}
    ranks |= {t.name: len(t.dims) for t in graph.initializer}
    kinds |= {t.name: t.data_type for t in graph.initializer}
    constants |= {output for n in graph.node if n.op_type == "Constant" for output in n.output}
    return Model(ranks, kinds, frozenset(constants), len(_sums(graph)))


def _sums(graph: onnx.GraphProto) -> set[Any]:
    """The different ways (axis, direction, inclusion) of the CumSum nodes of a graph."""
    import onnx

    values = {t.name: int(onnx.numpy_helper.to_array(t).ravel()[0]) for t in graph.initializer if _single(t.dims)}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            if _single(tensor.dims):
                values[node.output[0]] = int(onnx.numpy_helper.to_array(tensor).ravel()[0])
    return {
        (values.get(node.input[1], node.name), *sorted((a.name, a.i) for a in node.attribute))
        for node in _nodes(graph)
        if node.op_type == "CumSum"
    }


def _single(dims: Sequence[int]) -> bool:
    """Whether a tensor of these dims holds one number."""
    return all(dim == 1 for dim in dims)
