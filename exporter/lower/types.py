"""Types in the graph: a float32 graph becomes one whose every tensor has the type it is computed in.

The form that strongly typed runtimes take, and the only one in which a lower precision cannot be ignored. Inputs and
outputs keep their types: whoever uses the model sees no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from exporter.simplify.passes import name_nodes

# What each precision is called in ONNX, and in the schema of an operator.
TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
SCHEMA_NAMES = {ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)"}

# Operators that move values and change none: they take the type they are given, so that no cast is needed for them.
MOVING = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape",
    "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    "Where",
})  # fmt: skip


def named(model: onnx.ModelProto) -> ir.Model:
    """The model with every type known, every constant an initializer, and a name on every node; always the same."""
    loaded = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(loaded)
    name_nodes(loaded.graph)
    return loaded


def converted(tensor: ir.TensorProtocol, kind: ir.DataType, name: str | None = None) -> ir.LazyTensor:
    """A tensor in another type, made when it is written and not kept: all weights at once would be as much again."""
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype(kind.numpy()), dtype=kind), kind, ir.Shape(tensor.shape),
        name=name or tensor.name,
    )  # fmt: skip


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is of the type that is lowered."""
    if value is None:
        return False
    kind = value.const_value.dtype if value.const_value is not None else value.dtype
    return bool(kind == ir.DataType.FLOAT)


def lowered_sides(model: ir.Model, node: ir.Node, precision: str) -> tuple[list[bool], list[bool]]:
    """Which inputs and which outputs of a node take the lower type, where the node is lowered."""
    schema, low = _schema(node, model.opset_imports.get("", 18)), TYPES[precision]
    takes = [is_float(v) and node.op_type != "Cast" and _allows(schema, i, low, "inputs")
             for i, v in enumerate(node.inputs)]  # fmt: skip
    return takes, [is_float(v) and _allows(schema, i, low, "outputs") for i, v in enumerate(node.outputs)]


def typed(model: ir.Model, precision: str, kept: Mapping[str, str]) -> ir.Model:
    """Gives every value its type, in place.

    Args:
        model: a float32 model as :func:`named` gives it.
        precision: what the nodes compute in, a key of :data:`TYPES`.
        kept: the nodes that stay in float32, with the reason.

    Returns:
        The same model.
    """
    work = _Typing(model.graph, TYPES[precision], model.opset_imports.get("", 18))
    for node in list(model.graph):
        work.retype(node, node.name in kept)
    work.restore_outputs()
    work.drop_unused()
    return model


@dataclass
class _Typing:
    """The state of one pass: the casts made so far, and the type every float value has by now."""

    graph: ir.Graph
    low: ir.DataType
    opset: int
    casts: dict[tuple[int, ir.DataType], ir.Value] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    types: dict[int, ir.DataType] = field(default_factory=dict)
    replaced: dict[str, ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = {v.name for n in self.graph for v in n.outputs if v.name} | set(self.graph.initializers)
        self.names |= {v.name for v in self.graph.inputs if v.name}

    def retype(self, node: ir.Node, keep: bool) -> None:
        """Feeds a node in its type, and notes the type of what it gives."""
        schema = _schema(node, self.opset)
        follows = node.op_type in MOVING and not keep
        if follows:
            keep = any(is_float(v) and not self._constant(v) and self._type(v) != self.low for v in _inputs(node))
        floats = [is_float(value) for value in node.outputs]
        if node.op_type != "Cast":  # a cast takes anything
            for index, value in enumerate(node.inputs):
                if value is not None and is_float(value):
                    lowers = not keep and _allows(schema, index, self.low, "inputs")
                    node.replace_input_with(index, self._as(value, self.low if lowers else ir.DataType.FLOAT))
        for index, (value, was_float) in enumerate(zip(node.outputs, floats, strict=True)):
            if was_float:
                lowers = not keep and _allows(schema, index, self.low, "outputs")
                self.types[id(value)] = self.low if lowers else ir.DataType.FLOAT
        if not keep:
            self._retype_attributes(node)

    def restore_outputs(self) -> None:
        """Gives the model's outputs the type they had, under the names they had."""
        for index, value in enumerate(list(self.graph.outputs)):
            if self.types.get(id(value)) == self.low:
                name = value.name
                value.name = self._fresh(f"{name}.{self.low.name.lower()}")
                cast = self._cast(value, ir.DataType.FLOAT, name)
                cast.shape = value.shape
                self.graph.outputs[index] = cast
        for value in [v for node in self.graph for v in node.outputs]:
            if id(value) in self.types:
                value.type = ir.TensorType(self.types[id(value)])

    def drop_unused(self) -> None:
        """Removes the constants that only had float32 users."""
        outputs = {id(value) for value in self.graph.outputs}
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and id(value) not in outputs:
                del self.graph.initializers[name]

    def _type(self, value: ir.Value) -> ir.DataType:
        # An input counts as lowered: the cast stands at the door, and what follows moves half the bytes.
        default = self.low if value.producer() is None else ir.DataType.FLOAT
        return self.types.get(id(value), default)

    def _constant(self, value: ir.Value) -> bool:
        return value.const_value is not None

    def _as(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """The value in the wanted type: itself, a constant of that type, or one cast that all users share."""
        if value.const_value is not None:
            return value if wanted == ir.DataType.FLOAT else self._constant_as(value, wanted)
        now = ir.DataType.FLOAT if value.producer() is None else self.types.get(id(value), ir.DataType.FLOAT)
        if now == wanted:
            return value
        key = id(value), wanted
        if key not in self.casts:
            self.casts[key] = self._cast(value, wanted, self._fresh(f"{value.name}.{wanted.name.lower()}"))
        return self.casts[key]

    def _constant_as(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        key = id(value), wanted
        if key not in self.casts:
            assert value.const_value is not None
            name = self._fresh(f"{value.name}.{wanted.name.lower()}")
            tensor = converted(value.const_value, wanted, name)
            constant = ir.Value(name=name, type=ir.TensorType(wanted), shape=value.shape, const_value=tensor)
            self.graph.register_initializer(constant)
            self.casts[key] = constant
        return self.casts[key]

    def _cast(self, value: ir.Value, wanted: ir.DataType, name: str) -> ir.Value:
        cast = ir.node("Cast", [value], {"to": wanted.value}, name=self._fresh(f"cast_{name}"))
        made = cast.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(wanted), value.shape
        producer = value.producer()
        if producer is None:
            first = self.graph[0]
            self.graph.insert_before(first, cast)
        else:
            self.graph.insert_after(producer, cast)
        return made

    def _fresh(self, name: str) -> str:
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def _retype_attributes(self, node: ir.Node) -> None:
        """What a node makes from nothing, it makes in its own type."""
        if not any(self.types.get(id(value)) == self.low for value in node.outputs):
            return
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", self.low.value)
        for name in ("value",):
            attribute = node.attributes.get(name)
            if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                array = tensor.numpy().astype(self.low.numpy())
                node.attributes[name] = ir.AttrTensor(name, ir.Tensor(array, dtype=self.low))


def _inputs(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def _schema(node: ir.Node, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None


def _allows(schema: onnx.defs.OpSchema | None, index: int, low: ir.DataType, side: str) -> bool:
    """Whether an operator may take or give the lower type there: a scale of Resize, say, is float32 whatever x is."""
    if schema is None:
        return False
    formals = getattr(schema, side)
    formal = formals[min(index, len(formals) - 1)]
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return SCHEMA_NAMES[low] in allowed.get(formal.type_str, [formal.type_str])
