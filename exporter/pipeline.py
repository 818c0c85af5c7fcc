"""define -> trace -> simplify -> compile -> verify -> profile: each stage in a child, its product a file.

This module only orders the stages; it imports no runtime and no PyTorch, and names no target and no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter import calibration, lower, program, registry, samples
from exporter.bundle import Bundle, Draft, editing
from exporter.compile import compiled, prepared
from exporter.errors import Incomplete, NotProven, Refused, nearest
from exporter.graph import sha256
from exporter.hops import artifact_hop, graph_hop, interface_of, work_of
from exporter.isolate import Limits
from exporter.latency.result import Profile
from exporter.latency.subjects import timed
from exporter.manifest import (
    BUNDLE,
    CalibrationInfo,
    CaseInfo,
    GraphFiles,
    Manifest,
    ModelInfo,
    PassRecord,
    TargetInfo,
    Weights,
)
from exporter.preflight import Opening, options_of
from exporter.program import program_of
from exporter.spec import ModelDef
from exporter.stages import STAGE_SECONDS, TOOLS, Progress, Stage, Stages, require_torch, silent, tool_versions
from exporter.target import QUANTISED, Availability, Target
from exporter.use import use_page
from exporter.verdict import Hop, Precision, Verdict
from exporter.verification import Verification, refuse_missing_checkpoint, verification_of

GRAPH_HOPS = ("traced", "simplified")
EXPORT_REPORT = "export-"


@dataclass(frozen=True)
class Exported:
    """What an export left behind."""

    bundle: Path
    verification: Verification
    stages: tuple[Stage, ...]
    profile: Profile | None
    published: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The object of ``exporter TARGET MODEL --json``."""
        return {
            "schema": "exporter.export/1",
            "bundle": str(self.bundle),
            "verdict": self.verification.verdict.value,
            "stages": [stage.as_json() for stage in self.stages],
            "verify": self.verification.as_json(),
            "profile": self.profile.as_json() if self.profile else None,
            "published": self.published,
        }


@dataclass(frozen=True)
class Request:
    """What an export is asked for.

    Args:
        model: the model's name.
        target: the target's name.
        output: the bundle's folder; default ``./MODEL.bundle``.
        checkpoint: a file of weights; without one they are seeded.
        precision: the precision to compile for.
        dims: ``NAME=MIN:OPT:MAX`` texts.
        settings: options of the definition.
        samples: a file or folder of real inputs to judge on as well.
        calibration: a file or folder of real inputs that int8 takes its scales from; the same folder as ``samples`` is
            split.
        seed: seeds weights, and the order of timing blocks.
        threads: CPU threads of the artifact and of eager while profiling; 0 is as many as there are cores.
        replace: whether another graph's bundle may be replaced.
        profile: whether to measure latency.
        extra: options of the target alone, as :func:`exporter.target_options.target_options` reads them.
        device: which accelerator of the machine to compile, verify and time on.
        limits: time and memory of each stage.
    """

    model: str
    target: str
    output: Path | None = None
    checkpoint: Path | None = None
    precision: str = "fp32"
    dims: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: Path | None = None
    calibration: Path | None = None
    seed: int = 0
    threads: int = 0
    replace: bool = False
    profile: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    device: int = 0
    limits: Limits = field(default_factory=lambda: Limits(seconds=STAGE_SECONDS))

    @property
    def build(self) -> dict[str, Any]:
        """What a child needs to build the module again."""
        checkpoint = str(self.checkpoint.resolve()) if self.checkpoint else None
        options = dict(self.settings)
        return {
            "model": self.model, "options": options, "dims": list(self.dims),
            "checkpoint": checkpoint, "seed": self.seed,
        }  # fmt: skip


def export(request: Request, progress: Progress = silent) -> Exported:
    """Exports a model for one target into a bundle: traced, simplified, compiled, verified, profiled.

    Raises:
        Refused: bad input, before any work; nothing is written.
        NotProven: the model cannot be judged (random, mutating, a frozen dim); nothing is written.
        StageFailed: a stage crashed, timed out or ran out of memory; nothing is written.
    """
    target = registry.target(request.target)
    _refuse_precision(target, request.precision, request.device)
    definition = registry.model(request.model, request.settings).with_dims(request.dims)
    _refuse_idle_calibration(target, request)
    source, scales, found = calibration.chosen(definition, request.calibration, request.samples, request.seed)
    refuse_missing_checkpoint(request.checkpoint)
    path = request.output or Path(f"{request.model}.bundle")
    with editing(path, f"exporter {request.target} {request.model}") as draft:
        _refuse_other_model(draft, definition, request, path)
        _refuse_other_graph(draft, definition, request, path)
        stages = Stages(draft.work / "logs", request.limits, progress)
        key = _key(definition, request, found)
        manifest, hops = _graph(draft, definition, request, found, key, stages)
        calibrated = _calibrated(draft, manifest, definition, target, request, (source, scales), stages)
        manifest, made = _made(draft, manifest, target, request, calibrated, stages, str(path))
        hops, hop = [*hops, *made], made[-1]
        verification = verification_of(manifest, hops)
        measured = None
        if request.profile and hop.verdict in (Verdict.PASS, Verdict.FAIL):
            checkpoint = request.checkpoint.resolve() if request.checkpoint else None
            measured = timed(
                _files(draft), manifest, [_key_of(target.name, request.precision)], stages,
                checkpoint=checkpoint, seed=request.seed, threads=request.threads, opening=Opening(request.device),
            )  # fmt: skip
        exported = Exported(path, verification, tuple(stages.done), measured, _published(definition, request))
        report = json.dumps(exported.as_json(), indent=1, sort_keys=True).encode()
        name = f"{EXPORT_REPORT}{target.name}-{request.precision}"
        manifest = replace(manifest, reports=manifest.reports | {name: draft.write(f"reports/{name}.json", report)})
        draft.derived("USE.md", use_page(manifest))
        draft.commit(manifest)
    return exported


def _published(definition: ModelDef, request: Request) -> str | None:
    """Where trained weights are to be had, when these are seeded."""
    checkpoint = definition.checkpoint
    if checkpoint is None or request.checkpoint is not None:
        return None
    return f"{checkpoint.address} ({checkpoint.licence})"


def _refuse_precision(target: Target, precision: str, device: int) -> None:
    if precision not in target.precisions:
        raise Refused(
            "unsupported-precision",
            f"{target.name} has no precision {precision!r}{nearest(precision, list(target.precisions))}",
            where=f"target {target.name}",
            why=f"it offers {', '.join(target.precisions)}",
            next=f"--precision {next(iter(target.precisions))}",
        )
    lack = target.lacks(precision, device)
    if lack is not None:
        raise Refused(
            "unsupported-precision",
            f"{target.name} cannot compute in {precision} here: {lack.reason}",
            where=f"target {target.name}, {lack.node}",
            why="what would run instead is another precision than the one asked for",
            next=lack.remedy,
        )


def _refuse_idle_calibration(target: Target, request: Request) -> None:
    """Inputs to calibrate on that nothing would read: asked for, and silently not done."""
    if request.calibration is not None and QUANTISED not in target.lowers.get(request.precision, ()):
        raise Refused(
            "bad-calibration",
            f"--calibration is given, and {request.precision} on {target.name} takes no scales from it",
            where=f"--calibration {request.calibration}",
            why="inputs that nothing reads are a mistake somewhere",
            next="--precision int8, or leave --calibration out",
        )


def _refuse_other_model(draft: Draft, definition: ModelDef, request: Request, path: Path) -> None:
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


def _refuse_other_graph(draft: Draft, definition: ModelDef, request: Request, path: Path) -> None:
    """What is known to give another graph is refused before any work; other weights and code show later."""
    if draft.old is None or request.replace:
        return
    held = draft.old.manifest
    asked_kind = "checkpoint" if request.checkpoint else "seeded"
    differing = {
        "dims": held.dims != definition.dims,
        "options": held.model.options != dict(definition.options),
        "kind of weights": held.weights.kind != asked_kind,
        "seed": asked_kind == held.weights.kind == "seeded" and held.weights.seed != request.seed,
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


def _key(definition: ModelDef, request: Request, found: Sequence[Path]) -> str:
    """Digest of everything a graph and its references depend on."""
    parts: dict[str, Any] = {
        "build": request.build | {"checkpoint": sha256(request.checkpoint) if request.checkpoint else None},
        "dims": [str(dim) for dim in definition.dims],
        "samples": {path.name: sha256(path) for place in found for path in _within(place)},
        "sources": {path.name: sha256(path) for path in registry.model_sources(definition.name)},
        "ours": {path.name: sha256(path) for path in sorted(Path(__file__).parent.rglob("*.py"))},
        "tools": tool_versions(TOOLS),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _within(place: Path) -> list[Path]:
    """A sample's files: itself, or the pictures of a folder that is one sample."""
    return sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else [place]


def _graph(
    draft: Draft, definition: ModelDef, request: Request, found: Sequence[Path], key: str, stages: Stages
) -> tuple[Manifest, list[Hop]]:
    """The graph, its cases and its hops: from the bundle where it was made from the same things, else made now."""
    old = draft.old.manifest if draft.old else None
    if old is not None and old.key == key:
        stages.reused("trace", "reference", "simplify", "verify graph")
        return old, _recorded_hops(draft.old)
    require_torch("tracing")
    traced, reference = _traced_and_referenced(draft, definition, request, found, stages)
    cases = [_case_request(case) for case in reference["cases"]]
    options = options_of(definition, request.precision, request.threads)
    common = interface_of(definition, options)
    simplified = {name: draft.work / f"{name}.simplified.onnx" for name in traced}
    work = {name: draft.work / f"{name}.work.json" for name in traced}
    guards = _guarding(cases, definition)
    simplify = {
        **common,
        "graphs": {name: str(path) for name, path in traced.items()},
        "simplified": {name: str(path) for name, path in simplified.items()},
        "cases": guards,
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


def _traced_and_referenced(
    draft: Draft, definition: ModelDef, request: Request, found: Sequence[Path], stages: Stages
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Traces and computes references at the same time: one is Python, the other arithmetic."""
    traced = {name: draft.work / f"{name}.traced.onnx" for name in definition.graphs}
    folder = draft.work / "cases"
    folder.mkdir()
    prepared = samples.prepared_files(definition, found, draft.work)
    asked = {"build": request.build, "samples": prepared, "folder": str(folder), "planned": True}
    stages.progress("trace", {})  # said here, so that what is printed does not depend on which thread is faster
    with ThreadPoolExecutor(1) as pool:
        outputs = {name: str(path) for name, path in traced.items()}
        tracing = pool.submit(
            stages.attempt, "trace", "exporter.trace:stage", {"build": request.build, "outputs": outputs}
        )
        reference = stages.attempt("reference", "exporter.reference:write_cases", asked)
        traced_outcome = tracing.result()
    value = reference.require()
    if traced_outcome.require()["weights"]["digest"] != value["weights"]["digest"]:
        raise NotProven(
            "unstable-weights",
            "two builds of the model gave different weights",
            where=f"model {request.model}",
            why="the graph and its reference would be of two models",
            next="make the definition's build depend on its arguments alone",
        )
    return traced, value


def _case_request(case: Mapping[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("name", "scale", "steps", "file")}


def _guarding(cases: Sequence[Mapping[str, Any]], definition: ModelDef) -> list[Mapping[str, Any]]:
    """Two small cases, different in size and values, that every simplify pass must survive.

    Sparse and wide values, because they show what normal ones average away.
    """
    single = {case["name"]: case for case in cases if case["steps"] == 1}
    opt = "sparse" + "".join(f"-{d.name}{d.opt}" for d in definition.dims)
    smallest = "wide" + "".join(f"-{d.name}{d.min}" for d in definition.dims)
    chosen = [single[name] for name in (opt, smallest) if name in single]
    return chosen or list(single.values())[:2]


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
            draft.add(traced[name], f"{prefix}traced.onnx"),
            draft.add(simplified[name], f"{prefix}simplified.onnx"),
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
        onnx_tests=draft.add_folder(draft.work / "onnx-tests", "cases/onnx"),
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


def _key_of(target: str, precision: str) -> str:
    return f"{target}/{precision}"


@dataclass(frozen=True)
class _Calibrated:
    """What scales are taken from: as the bundle keeps it, and as each graph is given it."""

    info: CalibrationInfo | None = None
    feeds: Mapping[str, Sequence[str]] = field(default_factory=dict)


def _calibrated(
    draft: Draft,
    manifest: Manifest,
    definition: ModelDef,
    target: Target,
    request: Request,
    given: tuple[str, Sequence[Path]],
    stages: Stages,
) -> _Calibrated:
    """Runs the graphs over the calibration inputs, where a way to the precision needs them."""
    if QUANTISED not in target.lowers.get(request.precision, ()):
        return _Calibrated()
    found = calibration.prepared(definition, *given, draft.work / "calibration")
    calibration.refuse_judged(found, [(case.name, _files(draft)(case.file)) for case in manifest.cases])
    stream = definition.stream
    tensors = {tensor.name: tensor for tensor in definition.inputs}
    asked = interface_of(definition, options_of(definition, "fp32", 0)) | {
        "graphs": {name: str(_files(draft)(graph.simplified)) for name, graph in manifest.graphs.items()},
        "files": [str(path) for path in found.files], "folder": str(draft.work / "feeds"),
        "piece": tensors[stream.input].shape[stream.axis] if stream else 1,
    }  # fmt: skip
    feeds = stages.run("calibrate", "exporter.lower.calibrate:stage", asked)
    place = f"targets/{_key_of(target.name, request.precision)}/calibration"
    digest, names = found.digest, tuple(draft.add(path, f"{place}/{path.name}") for path in found.files)
    return _Calibrated(CalibrationInfo(found.source, digest, names), feeds)


def _made(
    draft: Draft,
    manifest: Manifest,
    target: Target,
    request: Request,
    calibrated: _Calibrated,
    stages: Stages,
    where: str,
) -> tuple[Manifest, list[Hop]]:
    """Lowers, compiles and verifies: by the first of the target's ways to the precision that passes, else by the last.

    What the ways before it came to is told with the last hop.
    """
    manifest = _with_yardsticks(draft, manifest, target, request, stages)
    ways, tried = target.lowers.get(request.precision, ("",)), list[str]()
    for way in ways:
        found = _lowered(draft, manifest, target, request, way, stages)
        found = replace(found, calibrated=calibrated)
        done, hop = _compiled(draft, manifest, target, request, found, stages, where)
        if hop.verdict is not Verdict.FAIL or way == ways[-1]:
            break
        tried.append(f"by way of {way!r} it was {hop.verdict}: {hop.reason}")
    if tried:
        hop = replace(hop, facts={**hop.facts, "advice": [*tried, *hop.facts.get("advice", [])]})
    return done, [*found.hops, hop]


@dataclass(frozen=True)
class _Lowered:
    """The graphs that a target wants other than the simplified ones, as files of the bundle, and what came of them."""

    way: str = ""
    graphs: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    hops: tuple[Hop, ...] = ()
    calibrated: _Calibrated = field(default_factory=_Calibrated)


def _with_yardsticks(draft: Draft, manifest: Manifest, target: Target, request: Request, stages: Stages) -> Manifest:
    """The manifest with the yardstick of the precision asked for.

    Those of targets that the bundle holds already are made again where its cases are new.
    """
    ways = set(target.lowers.get(request.precision, ()))
    asked = {request.precision} if ways - {QUANTISED} else set[str]()
    known = draft.old.manifest.yardsticks if draft.old else {}
    held = {info.precision for info in manifest.targets.values()} & known.keys()
    for precision in sorted((asked | held) - manifest.yardsticks.keys()):
        require_torch(f"the yardstick of {precision}")
        file = draft.work / f"{precision}.safetensors"
        lower.yardstick(manifest, _files(draft), request.build, precision, file, stages)
        name = draft.add(file, f"yardsticks/{precision}.safetensors")
        manifest = replace(manifest, yardsticks=manifest.yardsticks | {precision: name})
    return manifest


def _lowered(draft: Draft, manifest: Manifest, target: Target, request: Request, way: str, stages: Stages) -> _Lowered:
    if not lower.rewrites(target, way):
        return _Lowered(way)
    folder, precision = draft.work / f"lowered-{way}", request.precision
    yardsticks = [_files(draft)(manifest.yardsticks[precision])] if precision in target.lowers else []
    found = lower.lowered(manifest, _files(draft), precision, yardsticks, folder, stages, target.opset)
    place = f"targets/{_key_of(target.name, precision)}/graphs"
    graphs = {name: draft.add(path, f"{place}/{name}.onnx") for name, path in found.graphs.items()}
    return _Lowered(way, graphs, tuple(found.hop.facts["kept"]), (found.hop,))


def _compiled(
    draft: Draft,
    manifest: Manifest,
    target: Target,
    request: Request,
    lowered: _Lowered,
    stages: Stages,
    where: str,
    before: Mapping[str, str] | None = None,
) -> tuple[Manifest, Hop]:
    """Compiles and verifies; a runtime that is absent leaves a place and the command to fill it.

    ``before`` are the files that an export of the same graphs prepared, by role.
    """
    key = _key_of(target.name, request.precision)
    available = target.available()
    options = replace(
        options_of(manifest, request.precision, request.threads, request.extra),
        device=request.device,
        prepared={role: str(_files(draft)(file)) for role, file in (before or {}).items()},
        way=lowered.way,
        calibration=lowered.calibrated.feeds,
        kept=lowered.kept,
    )
    folder = draft.work / f"artifact-{lowered.way}"
    sources = _named_graphs(manifest, lowered.graphs)
    graphs = {name: _files(draft)(file) for name, file in sources.items()}
    if not available.present:
        ahead = prepared(stages, target, manifest, graphs, options, folder) if target.prepares else {}
        by_hand = program.by_hand(target, program_of(manifest), sources, options)
        info = _absent(target, request, lowered, _added(draft, key, ahead, folder), available, by_hand)
        hop = Hop(
            "compiled",
            target.name,
            Verdict.SKIPPED,
            f"runtime absent: {available.reason}",
            Precision(request.precision, "-"),
            facts={"advice": [f"finish it where the runtime is: {info.finish(where)}", *by_hand]},
        )
        return replace(manifest, targets=manifest.targets | {key: info}), hop
    made = compiled(stages, "compile", target, manifest, graphs, options, folder)
    info = TargetInfo(
        target=target.name, precision=request.precision, files=_added(draft, key, made.files, folder),
        forms=tuple(made.forms), fingerprint=dict(made.fingerprint), stored=made.stored, threads=request.threads,
        advice=tuple(made.advice), graphs=dict(lowered.graphs), options=dict(request.extra), way=lowered.way,
        kept=(*lowered.kept, *made.left), calibration=lowered.calibrated.info,
    )  # fmt: skip
    manifest = replace(manifest, targets=manifest.targets | {key: info})
    hop = artifact_hop(_files(draft), manifest, key, stages, opening=Opening(request.device), where=where)
    if made.left:
        hop = replace(hop, facts={**hop.facts, "kept": dict(made.left), "nodes": len(work_of(_files(draft), manifest))})
    return manifest, hop


def _prepared_graphs(manifest: Manifest, target: Target, precision: str, path: Path) -> _Lowered:
    """The graphs of a precision as an export wrote them: lowering takes PyTorch, for the yardstick.

    Raises:
        Refused: ``not-lowered`` where no export did.
    """
    info = manifest.targets.get(_key_of(target.name, precision))
    way = info.way if info else next(iter(target.lowers.get(precision, ("",))))
    rewrites = lower.rewrites(target, way)
    judged = precision not in target.lowers or precision in manifest.yardsticks
    if judged and not rewrites:
        return _Lowered(way)
    if not judged or info is None or not info.graphs:
        model, held = manifest.model.name, ", ".join(sorted(manifest.targets)) or "none"
        raise Refused(
            "not-lowered",
            f"{path} holds no {precision} graph for {target.name}"
            if rewrites
            else f"{path} holds no yardstick of {precision}",
            where=f"bundle {path}",
            why=f"a lower precision is prepared, and judged, where the model is traced; it holds {held}",
            next=f"exporter {target.name} {model} -o {path} --precision {precision}, where PyTorch is",
        )
    return _Lowered(way, info.graphs, info.kept)


def _named_graphs(manifest: Manifest, lowered: Mapping[str, str]) -> dict[str, str]:
    """The files that a target is compiled from."""
    return {name: lowered.get(name, graph.simplified) for name, graph in manifest.graphs.items()}


def _added(draft: Draft, key: str, files: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """The names that files of a target have in the bundle."""
    root = folder.resolve()
    return {
        role: draft.add(path, f"targets/{key}/{path.resolve().relative_to(root).as_posix()}")
        for role, path in files.items()
    }


def _files(draft: Draft) -> Callable[[str], Path]:
    """Where a file of the draft lies: one of the old bundle is checked against its digest, a new one is ours."""

    def path_of(name: str) -> Path:
        if draft.old is not None and name in draft.old.manifest.files:
            return draft.old.file(name)
        return draft.path / name

    return path_of


def _absent(
    target: Target,
    request: Request,
    lowered: _Lowered,
    files: Mapping[str, str],
    available: Availability,
    by_hand: tuple[str, ...],
) -> TargetInfo:
    precision = f" --precision {request.precision}" if request.precision != Request.precision else ""
    finish = f"exporter compile {BUNDLE} --target {target.name}{precision}"
    return TargetInfo(
        target=target.name, precision=request.precision, files=dict(files), forms=(), fingerprint={}, stored="-",
        threads=request.threads, status="incomplete",
        next=" && ".join(filter(None, [available.next, finish])),
        graphs=dict(lowered.graphs), options=dict(request.extra), advice=by_hand, way=lowered.way, kept=lowered.kept,
    )  # fmt: skip


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


def compile_bundle(
    path: Path,
    target_name: str,
    precision: str,
    limits: Limits,
    progress: Progress = silent,
    extra: Mapping[str, Any] | None = None,
    device: int = 0,
) -> Exported:
    """Compiles a bundle's graph for a target on the machine that has its runtime, and verifies it there.

    Options that the export was given hold unless ``extra`` says otherwise.
    """
    target = registry.target(target_name)
    _refuse_precision(target, precision, device)
    held = Bundle.open(path).manifest.targets.get(_key_of(target_name, precision))
    chosen = {**(held.options if held else {}), **(extra or {})}
    with editing(path, f"exporter compile --target {target_name}") as draft:
        assert draft.old is not None
        manifest = draft.old.manifest
        threads = held.threads if held else 0
        request = Request(
            manifest.model.name, target_name, precision=precision, threads=threads, extra=chosen, device=device,
            limits=limits,
        )  # fmt: skip
        available = target.available()
        if not available.present:
            raise Incomplete(
                "runtime-absent",
                f"{target_name} cannot run here: {available.reason}",
                where=f"target {target_name}",
                why="compiling needs the target's own runtime",
                next=available.next or f"copy {path} to a machine that has it, and run the same command there",
            )
        stages = Stages(draft.work / "logs", limits, progress)
        lowered = _prepared_graphs(manifest, target, precision, path)
        before = held.files if held else {}
        manifest, hop = _compiled(draft, manifest, target, request, lowered, stages, str(path), before)
        draft.derived("USE.md", use_page(manifest))
        draft.commit(manifest)
    return Exported(path, verification_of(manifest, [hop]), tuple(stages.done), None)
