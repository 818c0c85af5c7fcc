"""The passes themselves: what a library does is called, not written again."""

from __future__ import annotations

import contextlib
import io
import logging

import onnx
import onnx_ir as ir

from exporter.graph import SCOPE, SOURCE, apart_from_data, noted

# Folding may make a constant this much larger than its inputs' limit: weight layouts are folded, broadcasts are not.
FOLD_INPUT_LIMIT = 1 << 24
FOLD_OUTPUT_LIMIT = 1 << 24


def fold(model: onnx.ModelProto) -> ir.Model:
    """Evaluates constant subgraphs: shape arithmetic, weight layouts.

    onnxscript's rewrite rules are left out on purpose: on GTCRN they raise the error on sparse inputs from 2 to 38
    times eager's own (docs/parity.md), and onnxsim removes the same nodes without.
    """
    from onnxscript import optimizer

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    loaded = ir.from_proto(model)
    optimizer.fold_constants(loaded, input_size_limit=FOLD_INPUT_LIMIT, output_size_limit=FOLD_OUTPUT_LIMIT)
    return loaded


def onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxsim's simplification; its own ``ok`` checks nothing by default, so ours decides.

    It drops which module and line of the model a node is of: what it left as it was is told again, and what it made of
    several nodes is of those whose weights it takes. Weights that lie beside the graph it sees as inputs: it would
    serialise them, and protobuf ends at 2 GiB.
    """
    import onnxsim as simplifier

    notes = {key: _notes(model, key) for key in (SCOPE, SOURCE)}
    with contextlib.redirect_stdout(io.StringIO()):
        simplified = apart_from_data(model, lambda shown: simplifier.simplify(shown)[0])
    kept = [entry for entry in simplified.metadata_props if not entry.key.startswith("onnxsim")]
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(kept)
    weights = {tensor.name for tensor in simplified.graph.initializer}
    for node in simplified.graph.node:
        places = (node.name, *node.output, *(name for name in node.input if name in weights))
        for key, known in notes.items():
            text = next((known[place] for place in places if known.get(place)), None)
            if text is not None and not noted(node, key):
                node.metadata_props.add(key=key, value=text)
    return simplified


def _notes(model: onnx.ModelProto, key: str) -> dict[str, str]:
    """What is noted of every node, by its name and by its outputs, and of every weight that all its users agree on."""
    weights = {tensor.name: set[str]() for tensor in model.graph.initializer}
    notes = dict[str, str]()
    for node in model.graph.node:
        text = noted(node, key) or ""
        notes |= {place: text for place in (node.name, *node.output) if place}
        for name in weights.keys() & set(node.input):
            weights[name].add(text)
    return notes | {name: next(iter(of)) for name, of in weights.items() if len(of) == 1}


def tidy(model: onnx.ModelProto) -> ir.Model:
    """Removes duplicate subexpressions, duplicate initializers, identities, and what nothing uses; names every node."""
    from onnx_ir.passes import common

    loaded = ir.from_proto(model)
    for step in (
        common.CommonSubexpressionEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.TopologicalSortPass(),
    ):
        step(loaded)
    name_nodes(loaded.graph)
    return loaded


def name_nodes(graph: ir.Graph) -> None:
    """Gives every node without a name one, always the same: figures and reasons speak of nodes by name."""
    taken = {node.name for node in graph if node.name}
    for index, node in enumerate(graph):
        if not node.name:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy a pass may change."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def interface_difference(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """What a pass did to names, types or dims of inputs and outputs; None when nothing."""
    for kind in ("input", "output"):
        was, now = _interface(before, kind), _interface(after, kind)
        if was != now:
            lost = [name for name in was if was[name] != now.get(name)] or [name for name in now if name not in was]
            return f"it changed {kind} {lost[0]} from {was.get(lost[0])} to {now.get(lost[0])}"
    return None


def _interface(model: onnx.ModelProto, kind: str) -> dict[str, tuple[int, tuple[int | str, ...]]]:
    initializers = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in getattr(model.graph, kind) if value.name not in initializers]
    return {value.name: _described(value) for value in values}


def _described(value: onnx.ValueInfoProto) -> tuple[int, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
