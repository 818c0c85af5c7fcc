"""Simplify: passes over a traced graph, each kept only if two cases prove that it changed nothing.

:data:`ORDER` is the list; a pass is a function from a model to a model. A pass that loses an input, an output, a dim
or parity is dropped and named, and the ones after it start from the graph before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import registry
from exporter.graph import Graph
from exporter.isolate import Channel
from exporter.parity import worker
from exporter.parity.judge import judge
from exporter.parity.ladder import RUNGS
from exporter.simplify import onnx_tests, passes
from exporter.target import Options
from exporter.verdict import Verdict, worst

if TYPE_CHECKING:
    import onnx

Pass = Callable[["onnx.ModelProto"], "onnx.ModelProto"]

# (name, pass, why it stands here)
ORDER: tuple[tuple[str, Pass, str], ...] = (
    ("fold", passes.fold, "first: shape arithmetic and weight layouts become constants, which all others look at"),
    ("onnxsim", passes.onnxsim, "after folding: it has nothing left to evaluate slowly, and fuses what is exposed"),
    ("tidy", passes.tidy, "last: what the others left unused or said twice goes"),
)


def simplify(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: applies the passes one by one and writes the graph they leave.

    Args:
        request: ``graph``, ``output`` and ``onnx_tests`` (paths), and what :func:`worker.measure` takes of ``cases``
            (the two that guard each pass), ``outputs``, ``state``, ``stream`` and ``options``.
        channel: gets one progress event per pass.

    Returns:
        ``{"passes": [{"name", "verdict": "kept" | "dropped" | "no change", "reason"}]}``.
    """
    current = Graph(Path(request["graph"])).load()
    worker.quiet_polygraphy()
    records = []
    for index, (name, apply, _) in enumerate(ORDER):
        channel.send({"event": "progress", "what": f"pass {name}", "done": index, "of": len(ORDER)})
        candidate, reason = _attempt(apply, current, request)
        if candidate is None:
            records.append({"name": name, "verdict": "dropped", "reason": reason})
        elif passes.content(candidate) == passes.content(current):
            records.append({"name": name, "verdict": "no change", "reason": ""})
        else:
            reason = f"{len(current.graph.node)} to {len(candidate.graph.node)} nodes"
            records.append({"name": name, "verdict": "kept", "reason": reason})
            current = candidate
    Path(request["output"]).write_bytes(passes.content(current))
    onnx_tests.write(request["cases"], request["outputs"], current, Path(request["onnx_tests"]))
    return {"passes": records}


def _attempt(apply: Pass, current: onnx.ModelProto, request: Mapping[str, Any]) -> tuple[onnx.ModelProto | None, str]:
    """The pass's result, or None and why it is not taken."""
    try:
        candidate = apply(passes.copied(current))
    except Exception as error:  # a library's pass may raise anything; the graph before it is still right
        return None, f"it raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    lost = passes.interface_difference(current, candidate)
    if lost:
        return None, lost
    return (candidate, "") if not (reason := _parity_reason(candidate, request)) else (None, reason)


def _parity_reason(candidate: onnx.ModelProto, request: Mapping[str, Any]) -> str | None:
    """Why the candidate is not proven equal to eager on the guarding cases; None when it is."""
    runners = registry.graph_runners()
    if not runners:
        return "no runtime here can run a graph to prove it"
    path = Path(request["output"]).with_suffix(".candidate.onnx")
    path.write_bytes(passes.content(candidate))
    measured = []
    try:
        with runners[0].open_graph(Graph(path), Options(**request["options"])) as runner:
            for case in request["cases"]:
                measured += worker.measure_case(runner, request, case)
    except Exception as error:  # the runtime refuses what the pass made
        return f"{runners[0].name} refuses it: {str(error).splitlines()[0]}"
    finally:
        path.unlink(missing_ok=True)
    expected = [(case["name"], output) for case in request["cases"] for output in request["outputs"]]
    rung = RUNGS[runners[0].rung]
    results = judge(
        measured, expected, hop="simplified", target=None, form=None, rung=rung, precision="fp32", guard=True
    )
    if worst(result.verdict for result in results) is Verdict.PASS:
        return None
    bad = next(result for result in results if result.verdict is not Verdict.PASS)
    return f"parity lost on {bad.case}, {bad.output}: {bad.reason}"
