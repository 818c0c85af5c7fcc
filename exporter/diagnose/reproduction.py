"""A bundle of the part that fails by itself: ``exporter verify`` of it fails as the whole did, in a moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter import registry
from exporter.bundle import Bundle, Draft, editing, read_tensors, under, write_tensors
from exporter.candidate import Lowered, Making, compiled_for
from exporter.diagnose.result import Diagnosis
from exporter.errors import NotProven, Refused, StageFailed
from exporter.graph import Graph
from exporter.manifest import CaseInfo, GraphFiles, Manifest, TargetInfo
from exporter.request import Request
from exporter.spec import Step, Tensor
from exporter.stages import Stages
from exporter.target import INTEGER, Target
from exporter.use import use_page
from exporter.verdict import Hop, Verdict

FAMILY = "diagnosis"
WHOLE = "model"


def reproduced(found: Diagnosis, bundle: Bundle, path: Path, stages: Stages) -> Diagnosis:
    """The diagnosis with a bundle of what fails by itself, where it does."""
    birth, part = found.birth, found.files["part"]
    assert birth is not None
    target, info = _runs(found, bundle.manifest)
    if info is not None and info.way in INTEGER:
        return replace(found, notes=(*found.notes, "scales of int8 are the whole model's: no bundle of a part"))
    if part is None or not birth.alone:
        said = "no part of it fails by itself: compiled apart, all of them are right"
        return replace(found, notes=(*found.notes, said))
    try:
        hop = write(path, bundle.manifest, part, birth.node, target, info, stages)
    except (StageFailed, NotProven) as error:
        return replace(found, notes=(*found.notes, f"it cannot be compiled by itself: {error.what}"))
    if hop.verdict is Verdict.FAIL:
        return replace(found, reproduction=str(path))
    return replace(found, notes=(*found.notes, f"its bundle {path} is {hop.verdict}: {hop.reason}"))


def _runs(found: Diagnosis, manifest: Manifest) -> tuple[Target, TargetInfo | None]:
    """What the part is compiled for: the target at fault; of a graph at fault, the first that runs here."""
    if found.target is not None:
        key = f"{found.target}/{found.precision}"
        return registry.target(found.target), manifest.targets[key]
    for info in manifest.targets.values():
        if info.precision == "fp32" and registry.target(info.target).available().present:
            return registry.target(info.target), info
    return registry.graph_runners()[0], None


def write(
    path: Path,
    old: Manifest,
    part: Mapping[str, Any],
    what: str,
    target: Target,
    info: TargetInfo | None,
    stages: Stages,
) -> Hop:
    """Writes the bundle and verifies it.

    Args:
        path: its folder; a reproduction that lies there is replaced, and nothing else is.
        old: the manifest of the bundle that was diagnosed.
        part: as :func:`exporter.diagnose.parts.written` describes it.
        what: the node that it is about.
        target: the target that gets it wrong.
        info: how that target's artifact was made; None where a graph is at fault and none was.
        stages: runs the children.

    Returns:
        The compiled hop.
    """
    with editing(path, "exporter diagnose") as draft:
        _refuse_other(draft, path)
        precision = info.precision if info else Request.precision
        manifest = _manifest(draft, old, part, what, precision, lowered=precision in target.lowers)
        request = Request(manifest.model.name, target.name, precision=precision, limits=stages.limits)
        if info is not None:
            request = replace(request, threads=info.threads, extra=dict(info.options))
        making = Making(draft, target, request, stages, str(path))
        graphs = {WHOLE: manifest.graphs[WHOLE].simplified} if info and info.graphs else {}
        manifest, hop = compiled_for(making, manifest, Lowered(info.way if info else "", graphs))
        draft.derived("USE.md", use_page(manifest))
        draft.commit(manifest)
    return hop


def _refuse_other(draft: Draft, path: Path) -> None:
    if draft.old is not None and draft.old.manifest.model.family != FAMILY:
        raise Refused(
            "other-graph",
            f"{path} holds {draft.old.manifest.model.name}",
            where=f"bundle {path}",
            why="what fails by itself gets a bundle of its own",
            next="exporter diagnose BUNDLE -o OTHER.bundle",
        )


def _manifest(
    draft: Draft, old: Manifest, part: Mapping[str, Any], what: str, precision: str, lowered: bool
) -> Manifest:
    source = Path(part["graph"])
    key = Graph(source).digest()
    graph = draft.add_graph(source, "graphs/part.onnx")
    work = draft.write("graphs/work.json", json.dumps({}).encode())
    outputs = tuple(Tensor(name, tuple(of), "what it gives", kind) for name, (kind, of) in part["outputs"].items())
    inputs = tuple(
        Tensor(name, tuple(shape), "what it is given inside the model", kind, low, high)
        for name, (kind, shape, low, high) in part["inputs"].items()
    )
    files = {name: Path(file).read_bytes() for name, file in part["cases"].items()}
    cases = tuple(
        CaseInfo(name, "generated", "normal", {}, 1, draft.write(f"cases/case-{number}.safetensors", data))
        for number, (name, data) in enumerate(files.items())
    )
    yardsticks = {precision: _yardstick(draft, part)} if lowered else {}
    info = replace(old.model, name=f"{old.model.name}: {what}"[:256], family=FAMILY, metrics=())
    return replace(
        old, model=info, key=key, inputs=inputs, outputs=outputs, program=(Step(WHOLE),), dims=(), state=(),
        graphs={WHOLE: GraphFiles(graph, graph, inputs, outputs, (), work)}, before=(), after=(), cases=cases,
        stream=None, yardsticks=yardsticks, targets={}, reports={}, onnx_tests=(), files={},
    )  # fmt: skip


def _yardstick(draft: Draft, part: Mapping[str, Any]) -> str:
    """What rounding to the precision makes of the outputs, which stands in the cases already."""
    found = {}
    for case, file in part["cases"].items():
        for output, noise in under(read_tensors(Path(file)), "noise/").items():
            found[f"noise/{case}/{output}"] = np.asarray(noise[:2])
    path = draft.work / "yardstick.safetensors"
    write_tensors(path, found)
    return draft.add(path, "yardsticks/part.safetensors")
