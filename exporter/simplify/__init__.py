"""Simplify: passes over a traced graph, each kept only if a few cases, of several sizes, prove that it changed nothing.

:data:`ORDER` is the list; a pass is a function from a model to a model. A pass that loses an input, an output, a dim
or parity is dropped and named, and the ones after it start from the graph before it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import program, registry
from exporter.graph import Graph
from exporter.isolate import Channel
from exporter.parity import worker
from exporter.parity.judge import judge
from exporter.parity.ladder import RUNGS
from exporter.simplify import onnx_tests, passes
from exporter.target import Options
from exporter.verdict import Verdict, worst
from exporter.work.count import work

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

# It takes a linked model (:meth:`Graph.linked`), which it may change.
Pass = Callable[["onnx.ModelProto"], "onnx.ModelProto | ir.Model"]

# (name, pass, why it stands here)
ORDER: tuple[tuple[str, Pass, str], ...] = (
    ("fold", passes.fold, "first: shape arithmetic and weight layouts become constants, which all others look at"),
    ("onnxsim", passes.onnxsim, "after folding: it has nothing left to evaluate slowly, and fuses what is exposed"),
    ("tidy", passes.tidy, "last: what the others left unused or said twice goes"),
)


def simplify(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: applies the passes one by one to every graph and writes the graphs they leave.

    Args:
        request: ``graphs``, ``simplified`` and ``work`` (paths by name), ``onnx_tests`` (a folder), and what
            :func:`worker.measure` takes of ``cases`` (those that guard each pass), ``timed`` (what a profile times,
            the first of the data sets), ``outputs``, ``state``,
            ``stream``, ``program`` and ``options``.
        channel: gets one progress event per pass and graph.

    Returns:
        ``{"passes": {graph: [{"name", "verdict": "kept" | "dropped" | "no change", "reason"}]}}``.
    """
    worker.quiet_polygraphy()
    best = {name: Path(path) for name, path in request["graphs"].items()}
    records = {}
    for name, output in request["simplified"].items():
        records[name] = _simplified(name, best, Path(output), request, channel)
        best[name] = Path(output)
        _write_work(name, best[name], Path(request["work"][name]), request)
    if len(best) == 1:  # the layout is of one graph; of several, what runs between them would be missing
        tested = {case["file"]: case for case in (*request.get("timed", ()), *request["cases"])}
        only = Graph(next(iter(best.values())))
        onnx_tests.write(list(tested.values()), request["outputs"], only, Path(request["onnx_tests"]))
    return {"passes": records}


def _write_work(name: str, graph: Path, output: Path, request: Mapping[str, Any]) -> None:
    """What each node takes at the sizes that the model is optimised for."""
    steps, options = program.Program.from_json(request["program"]), Options(**request["options"])
    sizes = {tensor: [options.bounds(entry)[1] for entry in shape] for tensor, shape in steps.shapes[name].items()}
    output.write_text(json.dumps(work(Graph(graph).linked(), sizes), sort_keys=True), encoding="utf-8")


def _simplified(
    graph: str, best: Mapping[str, Path], output: Path, request: Mapping[str, Any], channel: Channel
) -> list[dict[str, str]]:
    """Simplifies one graph, the others beside it as they are, and says what became of each pass.

    What a pass leaves is a file at once: of a large graph no more than one pass is in memory.
    """
    records = []
    with tempfile.TemporaryDirectory(dir=output.parent, prefix="passes-") as place:
        current = Graph(best[graph])
        for index, (name, apply, _) in enumerate(ORDER):
            channel.send({"event": "progress", "what": f"pass {name}, graph {graph}", "done": index, "of": len(ORDER)})
            folder = Path(place) / str(index)
            folder.mkdir()
            candidate, reason = _attempt(apply, current, folder / output.name, request, graph, best)
            if candidate is None:
                records.append({"name": name, "verdict": "dropped", "reason": reason})
            elif candidate.digest() == current.digest():
                records.append({"name": name, "verdict": "no change", "reason": ""})
            else:
                records.append({"name": name, "verdict": "kept", "reason": reason})
                current = candidate
            for made in Path(place).iterdir():  # of a large graph each is as much again
                if made != current.path.parent:
                    shutil.rmtree(made)
        if current.path.parent.parent == Path(place):
            current.moved(output.parent)
        else:
            Graph.written(output, current.linked())
    return records


def _attempt(
    apply: Pass, current: Graph, path: Path, request: Mapping[str, Any], graph: str, best: Mapping[str, Path]
) -> tuple[Graph | None, str]:
    """What the pass leaves, written to ``path``, and how much smaller it is; or None and why it is not taken."""
    before = current.linked()
    nodes = len(before.graph.node)
    try:
        candidate = Graph.written(path, apply(passes.copied(before)))
    except Exception as error:  # a library's pass may raise anything; the graph before it is still right
        return None, f"it raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    after = candidate.linked()
    reason = passes.interface_difference(before, after) or _parity_reason(candidate, request, graph, best)
    return (None, reason) if reason else (candidate, f"{nodes} to {len(after.graph.node)} nodes")


def _parity_reason(candidate: Graph, request: Mapping[str, Any], graph: str, best: Mapping[str, Path]) -> str | None:
    """Why the candidate is not proven equal to eager on the guarding cases; None when it is."""
    runners = registry.graph_runners()
    if not runners:
        return "no runtime here can run a graph to prove it"
    measured, options = [], Options(**request["options"])
    steps = program.Program.from_json(request["program"])
    try:
        with program.open_graphs(runners[0], steps, {**best, graph: candidate.path}, options) as runner:
            for case in request["cases"]:
                measured += worker.measure_case(runner, request, case)
    except Exception as error:  # the runtime refuses what the pass made
        return f"{runners[0].name} refuses it: {str(error).splitlines()[0]}"
    expected = [(case["name"], output) for case in request["cases"] for output in request["outputs"]]
    rung = RUNGS[runners[0].rung]
    results = judge(
        measured, expected, hop="simplified", target=None, form=None, rung=rung, precision="fp32", guard=True
    )
    if worst(result.verdict for result in results) is Verdict.PASS:
        return None
    bad = next(result for result in results if result.verdict is not Verdict.PASS)
    return f"parity lost on {bad.case}, {bad.output}: {bad.reason}"
