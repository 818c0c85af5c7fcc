"""A candidate: one target in one precision, from a bundle's graphs to a verified artifact.

The ways of the target to that precision are tried in its order until one is no ``FAIL``. What ``--precision`` names
is made by one candidate; ``auto`` makes one of every precision and chooses (:mod:`exporter.choosing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter import lower, program
from exporter.budget import Budget
from exporter.bundle import Draft
from exporter.compile import compiled, prepared
from exporter.errors import NotProven, Refused
from exporter.graph import Graph, data_of
from exporter.hops import artifact_hop, interface_of, judged_on, previews_of
from exporter.manifest import BUNDLE, CalibrationInfo, Manifest, TargetInfo
from exporter.preflight import Opening, PathOf, options_of
from exporter.program import program_of
from exporter.request import Request
from exporter.stages import Stages, require_torch
from exporter.target import HINT, INTEGER, MIXED, OWN_SCALES, QDQ, QUANTISED, SCALED, Availability, Target
from exporter.verdict import Hop, Precision, Verdict

# How often a model is quantised: at first, without what the runtime itself has no int8 for, and without what two
# searches find to err too much.
ATTEMPTS = 4
EXACT = "fp32"


@dataclass(frozen=True)
class Calibrated:
    """What scales are taken from: as the bundle keeps it, and as each graph is given it."""

    info: CalibrationInfo | None = None
    feeds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Making:
    """What a candidate is made with.

    Attributes:
        draft: the bundle that is being written.
        target: the target.
        request: what was asked for, of ONE precision.
        stages: runs the children.
        where: the bundle's place, for commands that finish what is not compiled.
        budget: what it may cost.
        calibrated: what scales are taken from.
    """

    draft: Draft
    target: Target
    request: Request
    stages: Stages
    where: str
    budget: Budget = field(default_factory=Budget)
    calibrated: Calibrated = field(default_factory=Calibrated)

    @property
    def key(self) -> str:
        """``target/precision``."""
        return key_of(self.target.name, self.request.precision)

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways to the precision on this machine, in order."""
        return tuple(way for way in self.target.ways(self.request.precision) if way != MIXED)

    @property
    def mixes(self) -> bool:
        """Whether what is kept out of the precision can be tried in bf16."""
        return MIXED in self.target.ways(self.request.precision)

    def path_of(self, name: str) -> Path:
        """Where a file of the draft lies: one of the old bundle is checked against its digest, a new one is ours."""
        draft = self.draft
        if draft.old is not None and name in draft.old.manifest.files:
            return draft.old.file(name)
        return draft.path / name

    def added(self, files: Mapping[str, Path], folder: Path) -> dict[str, str]:
        """The names that files of the target have in the bundle."""
        return added(self.draft, self.key, files, folder)


def added(draft: Draft, key: str, files: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """The names that files of a target, by role, have in a bundle; the data of a graph stays beside it.

    Args:
        draft: the bundle.
        key: ``target/precision``.
        files: where they lie, under ``folder``.
        folder: what their names begin after.
    """
    root, names = folder.resolve(), dict[str, str]()
    beside = {Graph(path).data: role for role, path in files.items() if len(Graph(path).files) > 1}
    for role, path in files.items():
        if path not in beside:
            name = f"targets/{key}/{path.resolve().relative_to(root).as_posix()}"
            names[role] = draft.add_graph(path, name)
    names |= {role: data_of(names[beside[path]]) for role, path in files.items() if path in beside}
    return names


@dataclass(frozen=True)
class Candidate:
    """A manifest that has the target, and the hops of it: lowered where its graph is another, then compiled."""

    manifest: Manifest
    hops: tuple[Hop, ...]

    @property
    def hop(self) -> Hop:
        """The compiled hop."""
        return self.hops[-1]

    @property
    def compiled(self) -> bool:
        """Whether it came so far."""
        return self.hop.hop == "compiled"


def key_of(target: str, precision: str) -> str:
    return f"{target}/{precision}"


def fed(making: Making, manifest: Manifest, files: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """What each graph is given at its calls when the model runs over calibration inputs: files by graph."""
    return feeds_of(making.stages, manifest, making.path_of, files, making.draft.work / "feeds")


def feeds_of(
    stages: Stages, manifest: Manifest, path_of: PathOf, files: Sequence[Path], folder: Path
) -> dict[str, tuple[str, ...]]:
    """As :func:`fed`, of any bundle, written into a folder."""
    stream, inputs = manifest.stream, {tensor.name: tensor for tensor in manifest.inputs}
    request = interface_of(manifest, options_of(manifest, EXACT, 0)) | {
        "graphs": {name: str(path_of(graph.simplified)) for name, graph in manifest.graphs.items()},
        "files": [str(path) for path in files], "folder": str(folder),
        "piece": inputs[stream.input].shape[stream.axis] if stream else 1,
    }  # fmt: skip
    feeds = stages.run("calibrate", "exporter.lower.calibrate:stage", request)
    return {graph: tuple(paths) for graph, paths in feeds.items()}


def made(making: Making, manifest: Manifest) -> Candidate:
    """Lowers, compiles and verifies: by the first of the target's ways to the precision that passes, else by the last.

    What the ways before it came to is told with the last hop.
    """
    manifest = _with_yardsticks(making, manifest)
    ways, tried, found = making.ways, list[str](), None
    for way in ways:
        impossible = _beyond(making, manifest) if way == HINT else ""
        if impossible and way != ways[-1]:
            tried.append(f"by way of {way!r} it was not tried: {impossible}")
            continue
        tried += [impossible] if impossible else []
        try:
            found = _quantised(making, manifest, way) if way in SCALED else _by_way(making, manifest, way)
        except NotProven as error:
            if found is None and way == ways[-1]:
                raise
            tried.append(f"by way of {way!r} it was UNSUPPORTED: {error.what}")
            continue
        if found.hop.verdict is not Verdict.FAIL or way == ways[-1]:
            break
        tried.append(f"by way of {way!r} it was {found.hop.verdict}: {found.hop.reason}")
    assert found is not None
    if tried:
        hop = found.hop
        hop = replace(hop, facts={**hop.facts, "advice": [*tried, *hop.facts.get("advice", [])]})
        found = replace(found, hops=(*found.hops[:-1], hop))
    return found


@dataclass(frozen=True)
class Lowered:
    """The graphs that a target wants other than the simplified ones, as files of the bundle, and what came of them.

    ``kept`` are the nodes that stay out of the precision, with the reason.
    """

    way: str = ""
    graphs: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    hops: tuple[Hop, ...] = ()


def _beyond(making: Making, manifest: Manifest) -> str:
    """Why a runtime cannot be left to compute everything in a precision: a value that it cannot hold; or nothing."""
    precision = making.request.precision
    folder = making.draft.work / f"ranges-{precision}"
    found = lower.beyond(manifest, making.path_of, precision, folder, making.stages)
    return next((f"{node}: {reason}" for node, reason in found.items()), "")


def _by_way(making: Making, manifest: Manifest, way: str) -> Candidate:
    lowered = _lowered(making, manifest, way)
    done, hop = compiled_for(making, manifest, lowered)
    return Candidate(done, (*lowered.hops, hop))


def finished(making: Making, manifest: Manifest, lowered: Lowered, before: Mapping[str, str]) -> Candidate:
    """What an export prepared, compiled and verified where the runtime is.

    Where the target takes scales itself it was never tried: what int8 does not do for is found now.
    """
    held = manifest.targets.get(making.key)
    if lowered.way in OWN_SCALES and (held is None or held.status != "compiled"):
        return _quantised(making, manifest, QUANTISED)
    if lowered.way == MIXED and not making.mixes:
        lowered = replace(lowered, way=QUANTISED)
    done, hop = compiled_for(making, manifest, lowered, before)
    return Candidate(done, (hop,))


def unverified(making: Making, manifest: Manifest) -> Manifest:
    """The manifest with the target compiled by its first way, and not judged: something to time others against."""
    lowered = _lowered(making, manifest, making.ways[0])
    return compiled_for(making, manifest, lowered, verify=False)[0]


def _quantised(making: Making, manifest: Manifest, way: str) -> Candidate:
    """Quantises, and leaves out by evidence what int8 does not do for: what the runtime itself leaves in float32, and
    the layers that bring more error than the budget allows."""
    kept, facts, searches, told = dict[str, str](), dict[str, Any](), 0, list[str]()
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        found = _by_scales(making, manifest, way, kept, attempt, compile_anyway=last)
        failed = next((hop for hop in found.hops if hop.verdict is Verdict.FAIL), None)
        if failed is None or last:
            break
        known = {**failed.facts.get("kept", {}), **kept}
        left = {
            node: f"{making.target.name} has no int8 for it: it ran in {kind}, whatever its scales"
            for node, kind in failed.facts.get("otherwise", {}).items()
            if node not in known
        }
        if not left:
            sensitive = lower.sensitive(
                found.manifest, making.path_of, making.calibrated.feeds, making.budget, failed, known, searches,
                making.stages, making.draft.work / f"sensitive-{way}-{attempt}",
            )  # fmt: skip
            left, searches = dict(sensitive.kept), searches + 1
            facts = {"search": sensitive.facts}
        if not left:
            found = found if found.compiled else _by_scales(making, manifest, way, kept, ATTEMPTS, compile_anyway=True)
            break
        kept = {**kept, **left}
        told.append(f"before {len(left)} nodes were kept out: {failed.reason}")
    if found.hop.verdict is Verdict.PASS:
        found, told = _mixed(making, found, kept) if way == QUANTISED and making.mixes else (found, [])
    *before, hop = found.hops
    facts |= {"advice": [*hop.facts.get("advice", []), *told]}
    return Candidate(found.manifest, (*before, replace(hop, facts={**hop.facts, **facts})))


def _mixed(making: Making, found: Candidate, kept: Mapping[str, str]) -> tuple[Candidate, list[str]]:
    """What is kept out of int8 in bf16 instead of float32, where that passes as well; else why it does not."""
    done, hop = compiled_for(making, found.manifest, Lowered(MIXED, kept=kept))
    if hop.verdict is Verdict.PASS:
        return Candidate(done, (*found.hops[:-1], hop)), []
    return found, [f"by way of {MIXED!r} it was {hop.verdict}: {hop.reason}"]


def _by_scales(
    making: Making, manifest: Manifest, way: str, kept: Mapping[str, str], attempt: int, compile_anyway: bool
) -> Candidate:
    """One attempt with these nodes kept; a graph that is judged too far off is not compiled but at last."""
    lowered = Lowered(way, kept=kept)
    if way == QDQ:
        lowered = _with_scales(making, manifest, kept, attempt)
        if lowered.hops[-1].verdict is Verdict.FAIL and not compile_anyway:
            return Candidate(manifest, lowered.hops)
    done, hop = compiled_for(making, manifest, lowered)
    return Candidate(done, (*lowered.hops, hop))


def _with_scales(making: Making, manifest: Manifest, kept: Mapping[str, str], attempt: int) -> Lowered:
    """The graphs with Q/DQ in them, and what a runtime here makes of them."""
    calibrated, folder = making.calibrated, making.draft.work / f"scaled-{attempt}"
    scales = judged_on(QDQ, calibrated.info, [case.__dict__ for case in manifest.cases])
    found = lower.scaled(manifest, making.path_of, calibrated.feeds, making.budget, scales, kept, folder, making.stages)
    place = f"targets/{making.key}/graphs"
    graphs = {name: making.draft.add_graph(path, f"{place}/{name}.onnx") for name, path in found.graphs.items()}
    return Lowered(QDQ, graphs, found.hop.facts["kept"], (found.hop,))


def _with_yardsticks(making: Making, manifest: Manifest) -> Manifest:
    """The manifest with the yardstick of the precision asked for.

    Those of targets that the bundle holds already are made again where its cases are new.
    """
    old, request = making.draft.old, making.request
    lowers = request.precision in making.target.lowers and set(making.ways) - INTEGER
    asked = {request.precision} if lowers else set[str]()
    known = old.manifest.yardsticks if old else {}
    held = {info.precision for info in manifest.targets.values()} & known.keys()
    for precision in sorted((asked | held) - manifest.yardsticks.keys()):
        require_torch(f"the yardstick of {precision}")
        file = making.draft.work / f"{precision}.safetensors"
        lower.yardstick(manifest, making.path_of, request.build, precision, file, making.stages)
        name = making.draft.add(file, f"yardsticks/{precision}.safetensors")
        manifest = replace(manifest, yardsticks=manifest.yardsticks | {precision: name})
    return manifest


def _lowered(making: Making, manifest: Manifest, way: str) -> Lowered:
    target, precision = making.target, making.request.precision
    if not lower.rewrites(target, precision, way):
        return Lowered(way)
    folder = making.draft.work / f"lowered-{precision}-{way}"
    yardsticks = [making.path_of(manifest.yardsticks[precision])] if precision in target.lowers else []
    found = lower.lowered(
        manifest, making.path_of, precision, yardsticks, folder, making.stages, target.opset_of(precision, way)
    )
    place = f"targets/{making.key}/graphs"
    graphs = {name: making.draft.add_graph(path, f"{place}/{name}.onnx") for name, path in found.graphs.items()}
    return Lowered(way, graphs, found.hop.facts["kept"], (found.hop,))


def compiled_for(
    making: Making, manifest: Manifest, lowered: Lowered, before: Mapping[str, str] | None = None, verify: bool = True
) -> tuple[Manifest, Hop]:
    """Compiles and verifies; a runtime that is absent leaves a place and the command to fill it.

    Args:
        making: what with.
        manifest: the bundle's.
        lowered: the graphs to compile.
        before: the files that an export of the same graphs prepared, by role.
        verify: whether to judge what came of it.
    """
    target, request, stages = making.target, making.request, making.stages
    available = target.available()
    options = replace(
        options_of(manifest, request.precision, request.threads, request.extra),
        device=request.device,
        prepared={role: str(making.path_of(file)) for role, file in (before or {}).items()},
        way=lowered.way,
        calibration=making.calibrated.feeds if lowered.way in SCALED else {},
        kept=tuple(lowered.kept),
    )
    folder = making.draft.work / f"artifact-{request.precision}-{lowered.way}-{len(lowered.kept)}"
    sources = _named_graphs(manifest, lowered.graphs)
    graphs = {name: making.path_of(file) for name, file in sources.items()}
    scaled = lowered.way in SCALED
    place = TargetInfo(
        target=target.name, precision=request.precision, files={}, forms=(), fingerprint={}, stored="-",
        threads=request.threads, status="incomplete", graphs=dict(lowered.graphs), options=dict(request.extra),
        way=lowered.way, kept=dict(lowered.kept), calibration=making.calibrated.info if scaled else None,
        budget=making.budget,
    )  # fmt: skip
    if not available.present:
        ahead = prepared(stages, target, manifest, graphs, options, folder) if target.prepares else {}
        by_hand = program.by_hand(target, program_of(manifest), sources, options)
        finish = _finish(request, target, available)
        info = replace(place, files=making.added(ahead, folder), next=finish, advice=by_hand)
        hop = Hop(
            "compiled",
            target.name,
            Verdict.SKIPPED,
            f"runtime absent: {available.reason}",
            Precision(request.precision, "-"),
            facts={"advice": [f"finish it where the runtime is: {info.finish(making.where)}", *by_hand]},
        )
        return replace(manifest, targets=manifest.targets | {making.key: info}), hop
    label = f"compile {making.key}" if request.precision != Request.precision else "compile"
    artifact = compiled(stages, label, target, manifest, graphs, options, folder)
    left = {node: why for node, why in artifact.left.items() if node not in lowered.kept}
    info = replace(
        place, files=making.added(artifact.files, folder), forms=tuple(artifact.forms), status="compiled",
        fingerprint=dict(artifact.fingerprint), stored=artifact.stored, advice=tuple(artifact.advice),
        left=left,
    )  # fmt: skip
    manifest = replace(manifest, targets=manifest.targets | {making.key: info})
    if not verify:
        return manifest, Hop("compiled", target.name, Verdict.SKIPPED, "not asked for")
    shown = folder.with_name(f"{folder.name}.previews")
    hop = artifact_hop(
        making.path_of, manifest, making.key, stages, opening=Opening(request.device), where=making.where,
        previews=shown,
    )  # fmt: skip
    # Those of the artifact before are not this one's.
    name = previews_of(making.key)
    reports = {each: file for each, file in manifest.reports.items() if each != name}
    if shown.is_file():
        reports[name] = making.draft.add(shown, f"reports/{name}.safetensors")
    return replace(manifest, reports=reports), hop


def prepared_graphs(manifest: Manifest, target: Target, precision: str, path: Path) -> Lowered:
    """The graphs of a precision as an export wrote them: lowering takes PyTorch, for the yardstick.

    Raises:
        Refused: ``not-lowered`` where no export did.
    """
    info = manifest.targets.get(key_of(target.name, precision))
    way = info.way if info else next(iter(target.lowers.get(precision, ("",))))
    rewrites = lower.rewrites(target, precision, way)
    judged = precision not in target.lowers or way in INTEGER or precision in manifest.yardsticks
    judged = judged and (way not in SCALED or (info is not None and info.calibration is not None))
    kept = info.kept if info else {}
    if judged and not rewrites:
        return Lowered(way, kept=kept)
    if not judged or info is None or not info.graphs:
        model, held = manifest.model.name, ", ".join(sorted(manifest.targets)) or "none"
        raise Refused(
            "not-lowered",
            f"{path} holds no {precision} graph for {target.name}"
            if rewrites
            else f"{path} holds no {'calibration inputs' if way in SCALED else 'yardstick'} of {precision}",
            where=f"bundle {path}",
            why=f"a lower precision is prepared, and judged, where the model is traced; it holds {held}",
            next=f"exporter {target.name} {model} -o {path} --precision {precision}, where PyTorch is",
        )
    return Lowered(way, info.graphs, kept)


def _named_graphs(manifest: Manifest, lowered: Mapping[str, str]) -> dict[str, str]:
    """The files that a target is compiled from."""
    return {name: lowered.get(name, graph.simplified) for name, graph in manifest.graphs.items()}


def _finish(request: Request, target: Target, available: Availability) -> str:
    """The command that finishes an artifact where the runtime is."""
    precision = f" --precision {request.precision}" if request.precision != Request.precision else ""
    finish = f"exporter compile {BUNDLE} --target {target.name}{precision}"
    return " && ".join(filter(None, [available.next, finish]))
