"""Hops: what children measured becomes a verdict per edge of eager -> traced -> simplified -> compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.budget import CALIBRATED, Budget, judged, spent
from exporter.errors import Refused
from exporter.isolate import Outcome
from exporter.manifest import BUNDLE, CalibrationInfo, Manifest, TargetInfo
from exporter.parity import facts as facts_of
from exporter.parity.judge import judge
from exporter.parity.ladder import QUANTISED_RUNG, RUNGS, Rung
from exporter.parity.measure import Measurement
from exporter.preflight import Opening, PathOf, options_of, ready
from exporter.program import program_of
from exporter.spec import HostStep
from exporter.stages import Stages
from exporter.target import INTEGER, SCALED, UNPROVEN, WRITTEN, Availability, Options
from exporter.verdict import Hop, Precision, Result, Verdict, worst
from exporter.work import Work, kind_of, share, stored


def _too_right(precision: str, rung: Rung, results: Sequence[Result]) -> str:
    """Why the values themselves say that nothing was lowered, whatever the runtime says; nothing where they do not.

    Rounding to a lower precision leaves its mark. An error far below it is that of a higher precision.
    """
    found = [r.amplification for r in results if r.amplification is not None]
    if rung is not RUNGS["low"] or precision in PERMISSIONS or not found or max(found) >= TOO_RIGHT:
        return ""
    return f"asked for {precision}, but the error is {max(found):.2g} times eager's own in it: a higher precision ran"


# Precisions that a runtime may take where they are faster; all of it in float32 is not less than what was asked.
PERMISSIONS = frozenset({"tf32"})
# float32 errs some 1e-4 times as much as fp16 does, and 1e-5 times as much as bf16.
TOO_RIGHT = 1 / 256
NO_BUDGET = Budget()
FLOAT32 = frozenset({"fp32"})
# Whatever is finite, of the form that was declared.
ANY_VALUE = replace(QUANTISED_RUNG, decibels=-400.0)
# Less of the multiplications than this is another precision with a few nodes in the one that was asked for.
LEAST_SHARE = 0.25
DOUBLE = "; the model computes in float64 there: .float() on that part, or on what it is given"
SHOWN = 5  # of the nodes that ran in another type; the JSON has all


def interface_of(interface: Any, options: Options) -> dict[str, Any]:
    """What a measuring child needs to know of the model."""
    return {
        "outputs": {tensor.name: tensor.dtype for tensor in interface.outputs},
        "state": [state.__dict__ for state in interface.state],
        "stream": interface.stream.__dict__ if interface.stream else None,
        "options": options.__dict__,
        "program": program_of(interface).as_json(),
    }


def graph_hop(
    stages: Stages, hop: str, paths: Mapping[str, Path], common: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]
) -> Hop:
    """The verdict on plain graphs, by the first runtime here that runs them."""
    runners = registry.graph_runners()
    if not runners:
        return Hop(hop, None, Verdict.SKIPPED, "no runtime here can run a graph")
    target = runners[0]
    graphs = {name: str(path) for name, path in paths.items()}
    request = {**common, "target": target.name, "graphs": graphs, "form": None, "cases": list(cases)}
    outcome = stages.attempt(f"verify {hop}", "exporter.parity.worker:measure", request)
    return _judged(
        outcome, hop, None, (None,), cases, common, RUNGS["portable"], "fp32", ("fp32", "fp32"), {"by": target.name}
    )


def lowered_hop(
    stages: Stages,
    rounded: Mapping[str, Path],
    interface: Any,
    cases: Sequence[Mapping[str, Any]],
    yardsticks: Sequence[Path],
    precision: str,
) -> Hop:
    """The verdict on graphs written for a target; in a lower precision, with every value rounded to its type."""
    runners = registry.graph_runners()
    if not runners:
        return Hop("lowered", None, Verdict.SKIPPED, "no runtime here can run a graph", Precision(precision, precision))
    target = runners[0]
    common = interface_of(interface, options_of(interface, "fp32", 0))
    request = {
        **common, "target": target.name, "graphs": {name: str(path) for name, path in rounded.items()}, "form": None,
        "cases": list(cases), "yardsticks": [str(path) for path in yardsticks],
    }  # fmt: skip
    outcome = stages.attempt(f"verify lowered {precision}", "exporter.parity.worker:measure", request)
    if not yardsticks:  # another operator set, the same arithmetic
        facts = {"by": target.name}
        types = precision, precision
        return _judged(outcome, "lowered", None, (None,), cases, common, RUNGS["portable"], precision, types, facts)
    # It computes in float32 and rounds: both must show, or nothing was lowered.
    ran = "+".join(sorted({precision, "fp32"}))
    types, facts = (precision, ran), {"by": f"{target.name}, every value rounded to its declared type"}
    hop = _judged(outcome, "lowered", None, (None,), cases, common, RUNGS["low"], precision, types, facts)
    if hop.precision is not None and hop.precision.ran == ran:
        hop = replace(hop, precision=replace(hop.precision, ran=f"{precision}, emulated"))
    return hop


def scaled_hop(
    stages: Stages,
    graphs: Mapping[str, Path],
    interface: Any,
    cases: Sequence[Mapping[str, Any]],
    budget: Budget,
    scales: frozenset[str] | None,
) -> Hop:
    """The verdict on graphs with Q/DQ in them, by the first runtime here that runs them."""
    runners = registry.graph_runners()
    if not runners:
        return Hop("lowered", None, Verdict.SKIPPED, "no runtime here can run a graph", Precision("int8", "int8"))
    target = runners[0]
    common = interface_of(interface, options_of(interface, "fp32", 0))
    common |= {"metrics": list(interface.model.metrics), "after": _steps(interface.after)}
    request = {
        **common, "target": target.name, "graphs": {name: str(path) for name, path in graphs.items()}, "form": None,
        "cases": list(cases),
    }  # fmt: skip
    outcome = stages.attempt("verify lowered int8", "exporter.parity.worker:measure", request)
    return _judged(
        outcome, "lowered", None, (None,), cases, common, quantised_rung(budget), "int8", ("int8", "int8"),
        {"by": target.name}, mixed=True, scales=scales, budget=budget,
    )  # fmt: skip


def quantised_rung(budget: Budget) -> Rung:
    """The rung of what is judged by its error alone: as good as was asked for."""
    asked = budget.decibels
    return QUANTISED_RUNG if asked is None else replace(QUANTISED_RUNG, decibels=asked)


def _steps(steps: Sequence[HostStep]) -> list[dict[str, Any]]:
    return [{"step": step.step, "options": dict(step.options)} for step in steps]


def artifact_hop(
    path_of: PathOf,
    manifest: Manifest,
    key: str,
    stages: Stages,
    extra_cases: Sequence[Mapping[str, Any]] = (),
    extra_yardsticks: Mapping[str, Path] | None = None,
    opening: Opening | None = None,
    where: object = BUNDLE,
    previews: Path | None = None,
) -> Hop:
    """The compiled hop of one target: every form over every case.

    Args:
        path_of: where a file of the bundle lies.
        manifest: the bundle's.
        key: ``target/precision``.
        stages: runs the children.
        extra_cases: cases beside the bundle's.
        extra_yardsticks: by precision, eager's own error over those.
        opening: how the user wants it opened.
        where: the bundle's place, for the command that finishes what is not compiled.
        previews: where to leave what a person looks at of its answers to real inputs, if there are any.
    """
    info = manifest.targets[key]
    target = registry.target(info.target)
    available = target.available()
    if info.status != "compiled" or not available.present:
        reason = f"runtime absent: {available.reason}" if not available.present else "not compiled yet"
        remedy = info.finish(where) if info.status != "compiled" else available.next
        unfinished = {"advice": [f"finish it where the runtime is: {remedy}", *info.advice]}
        precision = Precision(info.precision, info.stored)
        return Hop("compiled", info.target, Verdict.SKIPPED, reason, precision, facts=unfinished)
    strange = info.way not in target.lowers.get(info.precision, ("",))
    if strange or ((info.kept or info.left) and info.way not in WRITTEN | SCALED):
        what = f"has no way {info.way!r} to" if strange else f"keeps no nodes by way of {info.way!r} out of"
        raise Refused(
            "bad-manifest",
            f"{info.target} {what} {info.precision}",
            where=f"targets.{key}.way",
            why="how an artifact came to its precision decides how strictly it is judged",
            next=f"exporter compile {where} --target {info.target} --precision {info.precision}",
        )
    cases = [*case_files(path_of, manifest), *extra_cases]
    made = ready(path_of, manifest, key, stages, opening or Opening())
    common = interface_of(manifest, made.options) | made.as_request()
    common |= {"metrics": list(manifest.model.metrics), "after": _steps(manifest.after)}
    lowered = info.precision in manifest.yardsticks
    if lowered:
        more = [str((extra_yardsticks or {})[info.precision])] if extra_cases else []
        common |= {"yardsticks": [str(path_of(manifest.yardsticks[info.precision])), *more]}
    outcomes = []
    for form in info.forms:
        request = {**common, "target": info.target, "form": form, "cases": cases}
        if previews is not None and form == info.forms[0]:
            request |= {"previews": {"file": str(previews), "prefix": f"{key}/"}}
        stage = f"verify {key}" + (f" {form}" if len(info.forms) > 1 else "")
        outcomes.append(stages.attempt(stage, "exporter.parity.worker:measure", request))
    rung = RUNGS["low" if lowered else target.rung]
    if info.way in INTEGER:
        rung = quantised_rung(info.budget)
    types = made.artifact.stored, target.computes(info.precision, info.way)
    work = stored.whole(path_of, manifest)
    advice = [*made.advice, *info.advice, *_moved_advice(info, available), *_int8_advice(info, manifest)]
    facts: dict[str, Any] = {"fingerprint": dict(made.artifact.fingerprint), "advice": list(dict.fromkeys(advice))}
    if info.way in SCALED and (kept := {**info.left, **info.kept}):
        modules = {node: work[node].module for node in kept if node in work}
        facts |= {"kept": kept, "modules": modules, "nodes": len(work)}
    return _judged(
        outcomes,
        "compiled",
        info.target,
        info.forms,
        cases,
        common,
        rung,
        info.precision,
        types,
        facts,
        mixed=lowered or info.way in INTEGER,
        work=work,
        kept=frozenset({*info.kept, *info.left}),
        rest=target.rest(info.precision, info.way),
        scales=judged_on(info.way, info.calibration, cases),
        budget=info.budget,
    )


def previews_of(key: str) -> str:
    """The name of the report that holds what a person looks at of a target's answers."""
    return f"previews-{key.replace('/', '-')}"


def judged_on(
    way: str, calibration: CalibrationInfo | None, cases: Sequence[Mapping[str, Any]]
) -> frozenset[str] | None:
    """The scales of cases that an artifact is judged on; all where None.

    Scales of int8 fit what they were taken from: real inputs, where those were real, and nothing a thousand times
    smaller.
    """
    if way not in SCALED:
        return None
    real = calibration is not None and calibration.real
    return frozenset({"sample"} if real and any(case["scale"] == "sample" for case in cases) else CALIBRATED)


def _moved_advice(info: TargetInfo, available: Availability) -> list[str]:
    """What to know of an artifact that is opened by another version than the one it was compiled with."""
    here, tool = available.version, next(iter(info.fingerprint), "")
    if len(info.fingerprint) != 1 or here is None or info.fingerprint[tool] == here:
        return []  # a target with more to its fingerprint says in its preflight what differs
    built = info.fingerprint[tool]
    return [f"compiled with {tool} {built}, verified with {here}: compile again where this version is to stay"]


def _judged(
    outcomes: Outcome | Sequence[Outcome],
    hop: str,
    target: str | None,
    forms: Sequence[str | None],
    cases: Sequence[Mapping[str, Any]],
    common: Mapping[str, Any],
    rung: Rung,
    precision: str,
    types: tuple[str, str],
    facts: Mapping[str, Any],
    mixed: bool = False,
    work: Mapping[str, Work] | None = None,
    kept: frozenset[str] = frozenset(),
    rest: frozenset[str] = FLOAT32,
    scales: frozenset[str] | None = None,
    budget: Budget = NO_BUDGET,
) -> Hop:
    """The hop's verdict from what its children measured, one per form; a child that did not answer decides it."""
    several = [outcomes] if isinstance(outcomes, Outcome) else list(outcomes)
    looked_at = {case["name"] for case in cases if scales is None or case["scale"] in scales}
    expected = [(case["name"], output) for case in cases for output in common["outputs"]]
    results: list[Result] = []
    known, ran, differing, metrics = dict(facts), set[str](), dict[str, str](), list[Mapping[str, Any]]()
    known["rung"] = rung.as_json()
    if rung.decibels is not None:
        known["decibels"] = rung.decibels
    stored, computed = types
    told = dict[str, str]()
    for form, outcome in zip(forms, several, strict=True):
        if outcome.error is not None:
            ended = outcome.reason or outcome.error.what
            known["log"] = f"{outcome.error.why} ({outcome.error.where})"
            return Hop(hop, target, outcome.verdict, ended, Precision(precision, stored), tuple(results), known)
        measured = [Measurement.from_json(value) for value in outcome.value["measurements"]]
        by = partial(judge, measured, expected, hop=hop, target=target, form=form, precision=precision)
        results += [result for result in by(rung=rung) if result.case in looked_at]
        # Of the others the values are not judged; that they are there, and are numbers, is.
        results += [r for r in by(rung=ANY_VALUE) if r.case not in looked_at and r.verdict is not Verdict.PASS]
        seen = dict(outcome.value["ran"])
        nodes = seen.pop("nodes")
        ran.add(seen["precision"])
        differing |= seen["differing"]
        if work:
            known.setdefault("work", share(work, nodes))  # of the form that is timed
            told = told or nodes
            differing |= _differing(work, nodes, computed, dict.fromkeys(kept, rest))
        known[form or "ran"] = seen
        known |= facts_of.drift(measured)
        known |= facts_of.undecided(measured)
        known.setdefault("histograms", facts_of.histograms(measured))
        metrics += outcome.value["metrics"]
        if outcome.value["metrics"]:
            known.setdefault("metrics", outcome.value["metrics"])
    precisions = Precision(precision, stored, "+".join(sorted(ran)))
    verdict = worst(result.verdict for result in results)
    bad = next((result for result in results if result.verdict is verdict and result.reason), None)
    reason = f"{bad.case}, {bad.output}: {bad.reason}" if bad else None
    cost = spent(results, {case["name"] for case in cases if case["scale"] in CALIBRATED}, metrics)
    known |= {"spent": cost.as_json()} | ({"otherwise": differing} if differing else {})
    known |= {"budget": str(budget)} if budget else {}
    whole = precision == "fp32" and not any(dtype.startswith("float") for dtype in common["outputs"].values())
    nothing_to_compute = whole and not work and ran == {"none"}
    mismatch = "" if nothing_to_compute else _mismatch(precision, computed, ran, differing, rest if mixed else None)
    mismatch = mismatch or _too_right(precision, rung, results)
    mismatch = mismatch or (_too_little(precision, computed, work, told) if mixed and work else "")
    if mismatch:
        return Hop(hop, target, Verdict.FAIL, mismatch, precisions, tuple(results), known)
    if verdict is Verdict.PASS and budget:
        verdict, over = judged(budget, cost)
        reason = over or None
    return Hop(hop, target, verdict, reason, precisions, tuple(results), known)


def _too_little(precision: str, computed: str, work: Mapping[str, Work], told: Mapping[str, str]) -> str:
    """Why so little of the work ran in what was asked for that it is not that precision's; nothing where enough did.

    What the runtime does not tell is not what was asked for.
    """
    if "|" in computed or computed in {"fp32", *PERMISSIONS}:
        return ""
    parts = share(work, told)
    if parts.get(computed, 0.0) >= LEAST_SHARE:
        return ""
    rest = ", ".join(f"{part:.0%} in {kind}" for kind, part in parts.items() if kind != computed)
    others = [node for node, of in work.items() if kind_of(node, of, told) != computed]
    largest = sorted(others, key=lambda node: -work[node].multiplications)[:SHOWN]
    said = f"asked for {precision}, and {parts.get(computed, 0.0):.0%} of the multiplications ran in it, {rest}"
    return f"{said}; the largest of {len(others)} nodes: {', '.join(largest)}"


def _int8_advice(info: TargetInfo, manifest: Manifest) -> list[str]:
    """What an int8 verdict rests on."""
    if info.way not in INTEGER:
        return []
    said = [f"scales were taken from {info.calibration.source}"] if info.calibration else []
    unjudged = [metric for metric in manifest.model.metrics if metric not in info.budget.losses]
    if manifest.model.metrics and len(unjudged) == len(manifest.model.metrics):
        said.append(f"what {unjudged[0]} loses was not judged: no real input with a known truth, or no bound for it")
    return said


def _differing(
    work: Mapping[str, Work], ran: Mapping[str, str], computed: str, kept: Mapping[str, frozenset[str]]
) -> dict[str, str]:
    """The nodes with work to do that ran in another type than was asked for; those kept for a reason have others."""
    if computed in PERMISSIONS:
        return {}
    told = {node: kind_of(node, of, ran) for node, of in work.items()}
    asked, none = set(computed.split("|")), frozenset[str]()
    return {node: kind for node, kind in told.items() if kind and kind not in asked | kept.get(node, none)}


def _mismatch(
    precision: str, computed: str, ran: set[str], differing: Mapping[str, str], rest: frozenset[str] | None
) -> str:
    """What ran and was not asked for; nothing where what ran is what was asked.

    A graph of a lower precision may keep nodes in another (``rest``); a node that ran in another type than its graph
    declares may not.
    """
    if differing:
        double = DOUBLE if "fp64" in differing.values() else ""
        named = ", ".join(f"{node} in {kind}" for node, kind in list(differing.items())[:SHOWN])
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        return f"asked for {precision}, but {named}{more} ran otherwise than the graph declares{double}"
    if UNPROVEN in ran:
        return f"asked for {precision}, and the runtime says of no node of the graph what it ran in"
    asked, kinds = set(computed.split("+")), {kind for each in ran for kind in each.split("+")}
    if "|" in computed:  # whichever the runtime has kernels for
        asked = set(computed.split("|"))
        return "" if kinds and kinds <= asked else f"asked for {precision}, {'+'.join(sorted(ran))} ran"
    if rest is None:
        right = all(set(each.split("+")) == asked for each in ran)
    else:
        asked = asked & kinds if asked <= PERMISSIONS else asked
        right = asked <= kinds <= asked | rest
    double = DOUBLE if "fp64" in kinds - asked else ""
    return "" if ran and right else f"asked for {precision}, {'+'.join(sorted(ran))} ran{double}"


def case_files(path_of: PathOf, manifest: Manifest) -> list[dict[str, Any]]:
    """The bundle's cases as a measuring child takes them."""
    return [{"name": c.name, "scale": c.scale, "steps": c.steps, "file": str(path_of(c.file))} for c in manifest.cases]
