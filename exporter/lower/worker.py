"""The child that lowers graphs: it measures ranges, decides what stays in float32, and writes the types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnxscript import version_converter

from exporter import program, registry
from exporter.bundle import read_tensors, under
from exporter.errors import Incomplete, NotProven
from exporter.graph import SCOPE, Graph, apart_from_data, module_of
from exporter.isolate import Channel
from exporter.lower import evidence, ranges, scales
from exporter.lower.rounding import rounded
from exporter.lower.switchboard import Typed
from exporter.lower.types import TYPES, named, typed
from exporter.parity import worker
from exporter.parity.ladder import QUANTISED_RUNG, RUNGS
from exporter.target import Options

# The scales whose ranges count. Near zero everything vanishes in fp16, eager's values too: that is judged, not lowered.
SCALES = ("normal", "wide", "sparse", "sample")


def stage(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: writes every graph of a program as a target wants it: in a lower precision, in another operator set.

    Args:
        request: ``precision``; ``opset`` or None; ``graphs`` (simplified), ``lowered`` and ``rounded``
            (paths to write) by name; ``cases``; and ``program`` and ``options`` as :func:`worker.measure` takes them.
        channel: gets a progress event per case.

    Returns:
        ``{"kept": {graph: {node: reason}}, "modules": {graph: {node: its module's path}}, "nodes": {graph: count}}``.

    Raises:
        NotProven: ``unsupported`` for a graph with control flow inside.
    """
    worker.quiet_polygraphy()
    precision, opset = request["precision"], request["opset"]
    if precision not in TYPES:
        return _in_another_opset(request, opset)
    models = _loaded(request)
    _refuse_control_flow(models)
    lost = _measured(models, request, channel)
    kept = {
        name: ranges.keeping(model, lost[name] | ranges.constant_losses(model, precision), precision)
        for name, model in models.items()
    }
    return _written(models, kept, request)


def scanning(request: dict[str, Any], channel: Channel) -> dict[str, dict[str, str]]:
    """Child: looks for values that a precision cannot hold at all, before anything is made in it.

    Args:
        request: ``precision``, ``graphs``, ``cases``, ``program`` and ``options`` as of :func:`stage`; ``lowered``,
            paths by graph beside which it may write.
        channel: gets a progress event per case.

    Returns:
        By graph, the nodes that give such values, each with the reason.
    """
    worker.quiet_polygraphy()
    models = _loaded(request | {"opset": None})
    if _with_control_flow(models):  # what runs inside is not measured; the artifact is judged all the same
        return {name: {} for name in models}
    lost = _measured(models, request, channel)
    return {name: ranges.beyond(model, lost[name], request["precision"]) for name, model in models.items()}


def searching(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: finds by running which nodes more must stay in float32, and writes the graphs again.

    Args:
        request: as of :func:`stage`, with only the ``cases`` to meet, and ``beside``, all of them; ``kept``, as it
            returned it; ``yardsticks``, ``outputs``, ``state`` and ``stream`` as :func:`worker.measure` takes them;
            ``memory``, a file of what earlier runs found; ``seconds``, what it may take.
        channel: gets what it will cost, then a progress event per run.

    Returns:
        As :func:`stage`, and ``"search"``: ``{"runs", "excess", "seconds"}``, what is left of the error in units of
        what is allowed.
    """
    worker.quiet_polygraphy()
    models = _loaded(request)
    how = dict.fromkeys(models, Typed(request["precision"]))
    found = evidence.searched(models, how, RUNGS["low"], request, channel)
    return _written(models, found.kept, request) | {"search": found.facts}


def _loaded(request: Mapping[str, Any]) -> dict[str, ir.Model]:
    """The float32 graphs, in the operator set that they will be lowered in: a newer one has more types."""
    return {
        name: named(in_opset(Graph(Path(path)).linked(), request["opset"])) for name, path in request["graphs"].items()
    }


def scaling(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: writes Q/DQ into every graph, by a target that quantises for others.

    Args:
        request: ``graphs`` (simplified) and ``lowered`` (paths to write) by name; ``feeds``, by graph files of inputs
            to calibrate on; ``kept``, by graph the nodes to leave out.
        channel: gets a progress event per graph.

    Returns:
        ``{"left": {graph: {node: reason}}, "modules": {graph: {node: its module's path}}, "nodes": {graph: count}}``.

    Raises:
        Incomplete: ``runtime-absent`` where nothing here quantises.
    """
    worker.quiet_polygraphy()
    quantiser = registry.quantiser()
    if quantiser is None:
        raise Incomplete(
            "runtime-absent",
            "nothing here can take scales for int8",
            why="Q/DQ is written into the graph by the quantiser of a runtime",
            next="exporter doctor",
        )
    left, nodes, modules = {}, {}, dict[str, dict[str, str]]()
    for name, path in request["graphs"].items():
        channel.send({"event": "progress", "what": f"taking scales of {name}"})
        graph, kept = Graph(Path(path)), request["kept"][name]
        left[name] = quantiser.quantise(
            graph, request["feeds"].get(name, ()), list(kept), Path(request["lowered"][name])
        )
        model = ir.from_proto(graph.linked())
        nodes[name] = len(model.graph)
        modules |= _modules({name: model}, {name: {**left[name], **kept}})
    return {"left": left, "modules": modules, "nodes": nodes}


def weighing(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: finds by running which products int8 does not do for: their inputs rounded to 8 bits, one by one.

    What is tried is what every quantiser does: weights of eight bits per channel, values of eight bits between the
    least and the largest seen on calibration inputs.

    Args:
        request: ``precision``, ``graphs``, ``cases``, ``beside``, ``program``, ``options``, ``outputs``, ``state``,
            ``stream``, ``memory`` and ``seconds`` as of :func:`searching`; ``kept`` by graph; ``feeds``, by graph files
            of inputs to calibrate on; ``decibels``, what is asked for; ``folder``, a place to write to.
        channel: gets what it will cost, then a progress event per run.

    Returns:
        ``{"kept", "modules", "search"}`` as :func:`searching`.
    """
    worker.quiet_polygraphy()
    models = {name: named(Graph(Path(path)).linked()) for name, path in request["graphs"].items()}
    _refuse_control_flow(models)
    folder, options = Path(request["folder"]), Options(**request["options"])
    spans = {
        name: scales.spans(model, request["feeds"].get(name, ()), folder, options) for name, model in models.items()
    }
    how = {name: scales.Scaled(spans[name]) for name in models}
    rung = replace(QUANTISED_RUNG, decibels=request["decibels"])
    found = evidence.searched(models, how, rung, request | {"scales": spans}, channel)
    return {"kept": found.kept, "modules": _modules(models, found.kept), "search": found.facts}


def _modules(models: Mapping[str, ir.Model], kept: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The module of the user's model that each kept node was traced from."""
    found = {name: [node for node in model.graph if node.name in kept[name]] for name, model in models.items()}
    return {
        name: {node.name or "": module_of(node.metadata_props.get(SCOPE)) for node in nodes}
        for name, nodes in found.items()
    }


def _written(
    models: Mapping[str, ir.Model], kept: dict[str, dict[str, str]], request: dict[str, Any]
) -> dict[str, Any]:
    """Writes the lowered graphs, and what a CPU runs in their place."""
    nodes = {name: len(model.graph) for name, model in models.items()}
    modules = _modules(models, kept)
    for name, model in models.items():
        low = _checked(Path(request["lowered"][name]), typed(model, request["precision"], kept[name]))
        Graph.written(Path(request["rounded"][name]), rounded(low.linked()))
    return {"kept": kept, "modules": modules, "nodes": nodes}


def _in_another_opset(request: Mapping[str, Any], opset: int | None) -> dict[str, Any]:
    """The float32 graphs in an operator set of the target's choice."""
    nodes = {}
    for name, path in request["graphs"].items():
        low = _checked(Path(request["lowered"][name]), in_opset(Graph(Path(path)).linked(), opset)).linked()
        nodes[name] = len(low.graph.node)
        Graph.written(Path(request["rounded"][name]), low)
    return {"kept": {name: {} for name in nodes}, "modules": {name: {} for name in nodes}, "nodes": nodes}


def _checked(path: Path, model: onnx.ModelProto | ir.Model) -> Graph:
    """Writes a model and has ONNX check it; by its path, for which no weights are too many."""
    graph = Graph.written(path, model)
    onnx.checker.check_model(str(path), full_check=True)
    return graph


def in_opset(model: onnx.ModelProto, opset: int | None) -> onnx.ModelProto:
    """The model in an operator set, by ONNX Script's converter, which knows newer ones, or ONNX's own, which knows
    older ones; itself where it is in it already.

    Raises:
        NotProven: ``unsupported`` where the converter knows no way.
    """
    now = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset is None or opset == now:
        return model
    if opset > now:
        loaded = ir.from_proto(model)
        version_converter.convert_version(loaded, opset, fallback=False)
        if loaded.opset_imports.get("") == opset:
            return ir.to_proto(loaded)
    try:
        return apart_from_data(model, lambda shown: onnx.version_converter.convert_version(shown, opset))
    except Exception as error:  # the converter has no type of its own for what it cannot do
        raise NotProven(
            "unsupported",
            f"the graph cannot be written in opset {opset}: {error}",
            where=f"graph {model.graph.name}, opset {now}",
            why="the target reads its graphs in an operator set of its own",
            next="write the node that it names with older operators, or choose another target",
        ) from error


def _measured(
    models: Mapping[str, ir.Model], request: Mapping[str, Any], channel: Channel
) -> dict[str, dict[str, ranges.Loss]]:
    """What rounding loses of every value, by running the float32 graphs over the cases."""
    runner_of = registry.graph_runners()[0]
    steps, options = program.Program.from_json(request["program"]), Options(**request["options"])
    paths, names = {}, {}
    for name, model in models.items():
        probe, names[name] = ranges.probed(model, request["precision"])
        _rename_probe(probe, name)
        paths[name] = Path(request["lowered"][name]).with_suffix(".probe.onnx")
        Graph.written(paths[name], probe)
    asked = replace(steps, outputs=tuple(_probe(name) for name in models))
    tables: dict[str, list[Any]] = {name: [] for name in models}
    chosen = [case for case in request["cases"] if case["scale"] in SCALES and case["steps"] == 1]
    with program.open_graphs(runner_of, asked, paths, options) as runner:
        for index, case in enumerate(chosen):
            channel.send({"event": "progress", "what": f"ranges {case['name']}", "done": index, "of": len(chosen)})
            inputs = under(read_tensors(Path(case["file"])), "input/")
            outputs = runner.infer(inputs, check_inputs=False)
            for name in models:
                tables[name].append(np.array(outputs[_probe(name)]))
    for path in paths.values():
        for file in Graph(path).files:
            file.unlink()
    return {name: ranges.losses(names[name], tables[name]) for name in models}


def _probe(graph: str) -> str:
    return f"{ranges.PROBE}/{graph}"


def _rename_probe(model: onnx.ModelProto, graph: str) -> None:
    """One name per graph, so that those of several do not meet."""
    model.graph.node[-1].output[0] = model.graph.output[-1].name = _probe(graph)


def _refuse_control_flow(models: Mapping[str, ir.Model]) -> None:
    inside = _with_control_flow(models)
    if inside:
        raise NotProven(
            "unsupported",
            f"a lower precision cannot be written into {', '.join(inside)}",
            where=f"graph {', '.join(models)}",
            why="what runs inside control flow has ranges of its own in every round, which are not measured",
            next="--precision fp32, or unroll it in the definition",
        )


def _with_control_flow(models: Mapping[str, ir.Model]) -> list[str]:
    """The nodes that have graphs of their own inside."""
    return [
        f"{node.name} ({node.op_type})" for model in models.values() for node in model.graph
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
    ]  # fmt: skip
