"""The graph of a bundle, whatever target it is for: traced, referenced, simplified, and judged; or taken as it is held.

What a bundle already holds is gone on from where it was made from the same things, and refused where it was not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter import samples
from exporter.bundle import Bundle, Draft
from exporter.cache import Call, Reusing
from exporter.errors import NotProven, Refused, StageFailed
from exporter.hops import graph_hop, interface_of
from exporter.manifest import CaseInfo, GraphFiles, Manifest, ModelInfo, PassRecord, Weights
from exporter.parity.cases import guarding
from exporter.preflight import options_of
from exporter.request import Request
from exporter.spec import ModelDef
from exporter.stages import TOOLS, require_torch, tool_versions
from exporter.verdict import Hop, Precision, Verdict

GRAPH_HOPS = ("traced", "simplified")
EXPORT_REPORT = "export-"


def refuse_other_model(draft: Draft, definition: ModelDef, request: Request, path: Path) -> None:
    """One bundle is one model, unless the old one is given up."""
    if draft.old is None or request.replace:
        return
    held = draft.old.manifest.model.name
    if held != definition.name:
        raise Refused(
            "other-model",
            f"{path} holds {held}, not {definition.name}",
            where=f"bundle {path}",
            why="one bundle is one model; its targets, cases and reports belong together",
            next=f"-o {definition.name}.bundle, or --replace to give up what it holds",
        )


def refuse_other_graph(draft: Draft, definition: ModelDef, request: Request, path: Path) -> None:
    """What is known to give another graph is refused before any work; other weights and code show later."""
    if draft.old is None or request.replace:
        return
    held = draft.old.manifest
    asked_kind = "checkpoint" if request.checkpoint else "own" if definition.weighted else "seeded"
    differing = {
        "dims": held.dims != definition.dims,
        "options": held.model.options != dict(definition.options),
        "kind of weights": held.weights.kind != asked_kind,
        "seed": asked_kind == held.weights.kind != "checkpoint" and held.weights.seed != request.seed,
    }
    found = [what for what, differs in differing.items() if differs]
    if found:
        raise _other_graph(definition.name, path, " and ".join(found))


def _other_graph(model: str, path: Path, differing: str) -> Refused:
    return Refused(
        "other-graph",
        f"the bundle holds another graph of {model}: other {differing}",
        where=f"bundle {path}",
        why="the targets it holds were compiled from that graph",
        next="-o ANOTHER.bundle, or --replace to give up what it holds",
    )


def graph_of(
    draft: Draft, definition: ModelDef, request: Request, found: Sequence[Path], key: str, stages: Reusing
) -> tuple[Manifest, list[Hop]]:
    """The graph, its cases and its hops: from the bundle where it was made from the same things, else made now."""
    old = draft.old.manifest if draft.old else None
    if old is not None and old.key == key:
        stages.reused("trace", "reference", "simplify", "verify graph")
        return old, _recorded_hops(draft.old)
    require_torch("tracing")
    traced, reference = _traced_and_referenced(draft, definition, request, found, stages)
    cases = [case_request(case) for case in reference["cases"]]
    options = options_of(definition, "fp32", request.threads)  # of the graph, whatever it is compiled to later
    common = interface_of(definition, options)
    simplified = {name: path.parent.with_name("simplified") / path.name for name, path in traced.items()}
    (draft.work / "simplified").mkdir()
    work = {name: draft.work / f"{name}.work.json" for name in traced}
    guards = [case_request(case) for case in guarding(reference["cases"], definition)]
    simplify = {
        **common,
        "graphs": {name: str(path) for name, path in traced.items()},
        "simplified": {name: str(path) for name, path in simplified.items()},
        "cases": guards,
        "timed": [case_request(case) for case in reference["cases"] if _is_timed(case, definition)][:1],
        "work": {name: str(path) for name, path in work.items()},
        "onnx_tests": str(draft.work / "onnx-tests"),
    }
    passes = stages.run("simplify", "exporter.simplify:simplify", simplify)["passes"]
    hops = [
        graph_hop(stages, "traced", traced, common, cases),
        graph_hop(stages, "simplified", simplified, common, cases),
    ]
    if reference["notes"]:  # what is true of the reference is told where it is first compared with
        hops[0] = replace(hops[0], facts={**hops[0].facts, "advice": reference["notes"]})
    manifest = _manifest(draft, definition, key, traced, simplified, work, passes, reference)
    return _joined(draft, manifest, request), hops


def _is_timed(case: Mapping[str, Any], definition: ModelDef) -> bool:
    """Whether it is the case that a profile times: a normal one at the opt sizes."""
    return bool(case["scale"] == "normal" and case["steps"] == 1 and case["sizes"] == definition.opt_sizes())


def _traced_and_referenced(
    draft: Draft, definition: ModelDef, request: Request, found: Sequence[Path], stages: Reusing
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Traces and computes references at the same time: one is Python, the other arithmetic."""
    traced = {name: draft.work / "traced" / f"{name}.onnx" for name in definition.graphs}
    (draft.work / "traced").mkdir()
    folder = draft.work / "cases"
    folder.mkdir()
    prepared = samples.prepared_files(definition, found, draft.work)
    outputs = {name: str(path) for name, path in traced.items()}
    asked = {"build": request.build, "samples": prepared, "folder": str(folder), "planned": True}
    outcomes = stages.together(
        Call("trace", "exporter.trace:stage", {"build": request.build, "outputs": outputs}),
        Call("reference", "exporter.reference:write_cases", asked),
    )
    if isinstance(outcomes["reference"].error, StageFailed) and isinstance(outcomes["trace"].error, NotProven):
        outcomes["trace"].require()  # it says which line of the model does not allow a size, where the other just ended
    value = outcomes["reference"].require()
    if outcomes["trace"].require()["weights"]["digest"] != value["weights"]["digest"]:
        raise NotProven(
            "unstable-weights",
            "two builds of the model gave different weights",
            where=f"model {request.model}",
            why="the graph and its reference would be of two models",
            next="make the definition's build depend on its arguments alone",
        )
    return traced, value


def case_request(case: Mapping[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("name", "scale", "steps", "file")}


def _manifest(
    draft: Draft,
    definition: ModelDef,
    key: str,
    traced: Mapping[str, Path],
    simplified: Mapping[str, Path],
    work: Mapping[str, Path],
    passes: Mapping[str, Sequence[Mapping[str, str]]],
    reference: Mapping[str, Any],
) -> Manifest:
    graphs = {}
    for name in definition.graphs:
        prefix = "graphs/" if len(traced) == 1 else f"graphs/{name}/"
        graphs[name] = GraphFiles(
            draft.add_graph(traced[name], f"{prefix}traced.onnx"),
            draft.add_graph(simplified[name], f"{prefix}simplified.onnx"),
            *definition.graph_tensors(name),
            tuple(PassRecord(**record) for record in passes[name]),
            draft.add(work[name], f"{prefix}work.json"),
        )
    cases = tuple(
        CaseInfo(
            c["name"],
            c["kind"],
            c["scale"],
            c["sizes"],
            c["steps"],
            draft.add(Path(c["file"]), f"cases/{c['name']}.safetensors"),
        )
        for c in reference["cases"]
    )
    info = ModelInfo(
        definition.name, definition.family, dict(definition.options), definition.source, definition.licence,
        reference["parameters"], definition.metrics,
    )  # fmt: skip
    return Manifest(
        model=info,
        weights=Weights(**reference["weights"]),
        key=key,
        inputs=definition.inputs,
        outputs=definition.outputs,
        graphs=graphs,
        program=definition.program,
        dims=definition.dims,
        state=definition.state,
        stream=definition.stream,
        before=definition.before,
        after=definition.after,
        cases=cases,
        onnx_tests=draft.add_folder(draft.work / "onnx-tests", "device/onnx"),
        tools=tool_versions(TOOLS),
    )


def _joined(draft: Draft, manifest: Manifest, request: Request) -> Manifest:
    """The new manifest with the targets of the old one, if its graph is the same to the byte."""
    if draft.old is None:
        return manifest
    old = draft.old.manifest
    if old.program != manifest.program or _files_of(old) != _files_of(manifest):
        if request.replace:
            return manifest
        raise _other_graph(manifest.model.name, draft.old.path, "weights, dims, options or code")
    yardsticks = old.yardsticks if old.cases == manifest.cases else {}  # a case's file has its digest in its name
    return replace(manifest, targets=old.targets, reports=old.reports, yardsticks=yardsticks)


def _files_of(manifest: Manifest) -> dict[str, str]:
    return {name: graph.simplified for name, graph in manifest.graphs.items()}


def _recorded_hops(bundle: Bundle | None) -> list[Hop]:
    """The traced and simplified hops as the export that made this graph recorded them; unknown is never success."""
    assert bundle is not None
    for name, file in bundle.manifest.reports.items():
        if name.startswith(EXPORT_REPORT):
            hops = [h for h in json.loads(bundle.read(file))["verify"]["hops"] if h["hop"] in GRAPH_HOPS]
            if hops:
                return [_hop_from_json(hop) for hop in hops]
    return [Hop(hop, None, Verdict.INVALID, "the bundle holds no export report of it") for hop in GRAPH_HOPS]


def _hop_from_json(value: Mapping[str, Any]) -> Hop:
    precision = Precision(**value["precision"]) if value["precision"] else None
    return Hop(value["hop"], value["target"], Verdict(value["verdict"]), value["reason"], precision, (), value["facts"])
