"""A switchboard: one float32 graph in which every node can be lowered, or not, from outside.

To find which nodes a precision cannot be had in, many choices have to be tried. Compiling a graph for each would take
longer than running it; here a choice is an input, and one session tries them all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx
import onnx_ir as ir

from exporter.lower.types import MOVING, TYPES, lowered_sides

SWITCHES = "exporter.switches"


class Rounding(Protocol):
    """What lowering a node does to its values."""

    def sides(self, model: ir.Model, node: ir.Node) -> tuple[list[bool], list[bool]]:
        """Which inputs and which outputs of a node are rounded where it is lowered."""

    def rounded(self, model: ir.Model, value: ir.Value, label: str) -> tuple[list[ir.Node], ir.Value]:
        """The nodes that round a value, named after ``label``, and what they give."""


@dataclass(frozen=True)
class Typed:
    """Rounding to a type of fewer bits: a key of :data:`exporter.lower.types.TYPES`."""

    precision: str

    def sides(self, model: ir.Model, node: ir.Node) -> tuple[list[bool], list[bool]]:
        """What takes and gives the type; nothing of a node that only moves."""
        if node.op_type in MOVING:
            return [False] * len(node.inputs), [False] * len(node.outputs)
        return lowered_sides(model, node, self.precision)

    def rounded(self, model: ir.Model, value: ir.Value, label: str) -> tuple[list[ir.Node], ir.Value]:  # noqa: ARG002
        """A cast there and back."""
        down = ir.node("Cast", [value], {"to": TYPES[self.precision].value}, name=f"{label}/down")
        up = ir.node("Cast", [down.outputs[0]], {"to": ir.DataType.FLOAT.value}, name=f"{label}/up")
        return [down, up], up.outputs[0]


def switchable(model: ir.Model, rounding: Rounding, kept: Collection[str]) -> list[str]:
    """The nodes that can be lowered: those that are rounded somewhere, and are not kept for a reason that is known."""
    return [
        node.name or "" for node in model.graph if node.name not in kept and any(map(any, rounding.sides(model, node)))
    ]


def switchboard(model: ir.Model, rounding: Rounding, nodes: Sequence[str], switches: str = SWITCHES) -> onnx.ModelProto:
    """The model with one input more: a bool per node, true where it is to be lowered.

    A node that is on takes rounded inputs, constants among them, and gives rounded outputs. With all off the graph
    computes what it always did; with all on, what the graph of that precision does, every value rounded to its type.

    Args:
        model: a float32 model as :func:`exporter.lower.types.named` gives it; it is copied.
        rounding: what lowering does to values.
        nodes: the nodes to switch, in the order of the bools.
        switches: the name of the input.
    """
    copy = ir.from_proto(ir.to_proto(model))
    graph, work = copy.graph, _Wiring(copy, rounding, switches)
    graph.inputs.append(work.switches)
    work.switches.shape = ir.Shape([len(nodes)])
    number = {name: index for index, name in enumerate(nodes)}
    for node in list(graph):
        if node.name in number:
            work.wire(node, number[node.name])
    return ir.to_proto(copy)


class _Wiring:
    """Wires nodes one by one; a value that several take is rounded once."""

    def __init__(self, model: ir.Model, rounding: Rounding, switches: str) -> None:
        self._model, self._how = model, rounding
        self.switches = ir.Value(name=switches, type=ir.TensorType(ir.DataType.BOOL))
        self._rounded: dict[int, ir.Value] = {}

    def wire(self, node: ir.Node, index: int) -> None:
        graph, label = self._model.graph, f"{self.switches.name}/{node.name}"
        takes, gives = self._how.sides(self._model, node)
        if not any(takes) and not any(gives):
            return
        constant = ir.node("Constant", [], {"value_int": index}, name=f"{label}/index")
        switch = ir.node("Gather", [self.switches, constant.outputs[0]], {"axis": 0}, name=f"{label}/switch")
        before: list[ir.Node] = [constant, switch]
        for place, value in enumerate(node.inputs):
            if value is not None and takes[place]:
                before += self._rounding(value)
                chosen = self._chosen(switch.outputs[0], value, f"{label}/in{place}")
                before.append(chosen)
                node.replace_input_with(place, chosen.outputs[0])
        graph.insert_before(node, before)
        for place, value in enumerate(node.outputs):
            if gives[place]:
                self._switch_output(node, value, switch.outputs[0], f"{label}/out{place}")

    def _switch_output(self, node: ir.Node, value: ir.Value, switch: ir.Value, name: str) -> None:
        uses, graph = list(value.uses()), self._model.graph
        is_output = [index for index, output in enumerate(graph.outputs) if output is value]
        after = self._rounding(value)
        chosen = self._chosen(switch, value, name)
        made = chosen.outputs[0]
        graph.insert_after(node, [*after, chosen])
        for user, place in uses:
            user.replace_input_with(place, made)
        for index in is_output:  # the model's output keeps its name
            value.name, made.name = f"{name}/exact", value.name
            graph.outputs[index] = made

    def _rounding(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that round a value, where none do yet."""
        if id(value) in self._rounded:
            return []
        label = f"{self.switches.name}/rounded{len(self._rounded)}"
        nodes, self._rounded[id(value)] = self._how.rounded(self._model, value, label)
        return nodes

    def _chosen(self, switch: ir.Value, value: ir.Value, name: str) -> ir.Node:
        made = ir.node("Where", [switch, self._rounded[id(value)], value], name=name)
        made.outputs[0].name = name
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        return made
