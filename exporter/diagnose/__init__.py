"""Diagnose: the first node of the first hop whose answer is wrong, told in the user's own words.

``child`` looks, in a process of its own: in graphs (``graphs``, against right values by name) or in what a target
compiles (``artifact``, by asking it for inner values). Both know what is right from ``oracle``, a graph run node by
node in float64; ``search`` is the halving itself, pure. ``reproduction`` writes what fails by itself as a bundle.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.bundle import Bundle
from exporter.diagnose import reproduction
from exporter.diagnose.result import Birth, Diagnosis, Outcome
from exporter.errors import Incomplete, NotProven, Refused, StageFailed, nearest
from exporter.hops import artifact_hop, case_files, graph_hop, interface_of
from exporter.isolate import Limits
from exporter.manifest import Manifest, TargetInfo
from exporter.models.rebuild import Code, build_of, missing
from exporter.preflight import Opening, options_of, ready
from exporter.stages import STAGE_SECONDS, Progress, Stages, scratch, silent
from exporter.target import INTEGER, Target
from exporter.verdict import Hop, Verdict
from exporter.verification import chosen, refuse_missing_checkpoint, weights_line

__all__ = ["Birth", "Diagnosis", "Outcome", "diagnose"]

# A node that is blamed has to be wrong in several cases, the smallest of those that fail.
CASES = 3
ENDINGS = {"carried": Outcome.CARRIED, "stale": Outcome.STALE, "before": Outcome.BEFORE, "right": Outcome.UNDECIDED}
MEANING = {
    Outcome.CARRIED: "no call is wrong for what it was given: the error is carried from call to call, and grows",
    Outcome.STALE: "what is compiled from this graph here is right: compile the bundle again",
    Outcome.BEFORE: "what PyTorch captured is wrong already: deploy() of the definition, or a form of the model that "
    "torch.export takes for another; no node of the graph is to blame",
    Outcome.UNDECIDED: "every part that was run apart is right",
}


def diagnose(
    path: Path,
    target: str = "",
    case: str = "",
    simplify_pass: str = "",
    output: Path | None = None,
    code: Code | None = None,
    limits: Limits | None = None,
    progress: Progress = silent,
    opening: Opening | None = None,
) -> Diagnosis:
    """Finds the first node whose answer is wrong, in the first hop that fails.

    Args:
        path: the bundle's folder.
        target: only this one, ``NAME`` or ``NAME/PRECISION``; all of them, in order, where empty.
        case: only this case; the smallest that fail where empty.
        simplify_pass: a pass that was dropped, to look into where every verdict is a PASS.
        output: where the bundle of what fails by itself is written; ``NAME.failing.bundle`` here when None.
        code: what the bundle does not hold, where tracing is to blame: the weights, or a model of the user's own.
        limits: time and memory of each stage.
        progress: told what happens.
        opening: how artifacts are opened.

    Raises:
        Refused: no such bundle, target, case or pass, or a file that is not what the manifest says.
        Incomplete: ``runtime-absent`` without ONNX.
        NotProven: ``undiagnosable`` at a node that cannot be run apart.
        StageFailed: looking crashed, timed out or ran out of memory.
    """
    started = time.monotonic()
    _require_onnx()
    refuse_missing_checkpoint(code.checkpoint if code else None)
    bundle = Bundle.open(path)
    with scratch() as folder:
        stages = Stages(folder, limits or Limits(seconds=STAGE_SECONDS), progress)
        work = Work(bundle, stages, folder / "diagnose", opening or Opening(), code or Code(), case)
        found = (
            work.of_pass(simplify_pass) if simplify_pass else work.of_hops(chosen(bundle, [target] if target else ()))
        )
        if found.birth is not None:
            found = work.reproduced(found, output or Path(f"{_stem(path)}.failing.bundle"))
    return replace(found, seconds=time.monotonic() - started)


def _stem(path: Path) -> str:
    return path.resolve().name.removesuffix(".bundle")


def _require_onnx() -> None:
    if find_spec("onnx") is None:
        raise Incomplete(
            "runtime-absent",
            "diagnosing needs onnx, which is not installed",
            why="graphs are cut apart, and run node by node",
            next="pip install '.[trace]' in a checkout, or copy the bundle to a machine that has it",
        )


@dataclass
class Work:
    """One diagnosis.

    Attributes:
        bundle: what is diagnosed.
        stages: runs the children.
        folder: a place to write to.
        opening: how artifacts are opened.
        code: the weights and the model, where they were given.
        case: the only case to look at, where one was named.
    """

    bundle: Bundle
    stages: Stages
    folder: Path
    opening: Opening
    code: Code
    case: str
    notes: list[str] = field(default_factory=list)
    _places: int = 0

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    # ------------------------------------------------------------------------------------------------ which hop

    def of_hops(self, keys: Sequence[str]) -> Diagnosis:
        """Looks into the first hop that is no PASS."""
        self._cases()  # one that is not there is refused before any work
        skipped: list[Hop] = []
        for hop, key in self._hops(keys):
            if hop.verdict is Verdict.SKIPPED:
                skipped.append(hop)
            elif hop.verdict is not Verdict.PASS:
                return self._looked(hop, key)
        if skipped:
            self.notes += [f"{hop.target or hop.hop}: {hop.reason}" for hop in skipped]
            return self._diagnosis(Verdict.SKIPPED, Outcome.NO_ANSWER)
        for name, graph in self.manifest.graphs.items():
            dropped = [record for record in graph.passes if record.verdict == "dropped"]
            self.notes += [f"pass {r.name} of graph {name} was dropped: {r.reason}; --pass {r.name}" for r in dropped]
        return self._diagnosis(Verdict.PASS, Outcome.NOTHING)

    def _hops(self, keys: Sequence[str]) -> Any:
        # All cases are judged, whichever is asked for: whether an output ever moves is seen over all of them.
        common, cases = self._common(), case_files(self.bundle.file, self.manifest)
        for hop in ("traced", "simplified"):
            yield graph_hop(self.stages, hop, self._graphs(hop), common, cases), ""
        for key in keys:
            yield artifact_hop(self.bundle.file, self.manifest, key, self.stages, opening=self.opening), key

    def _looked(self, hop: Hop, key: str) -> Diagnosis:
        failing = [result for result in hop.results if result.verdict is not Verdict.PASS]
        cases = self._smallest({result.case for result in failing} or {case["name"] for case in self._cases()})
        if not failing and (
            key or hop.verdict is not Verdict.CRASHED
        ):  # it crashed, or the values are right and something else is not
            self.notes.append(hop.reason or "")
            answered = hop.verdict is Verdict.FAIL
            return self._diagnosis(hop.verdict, Outcome.UNDECIDED if answered else Outcome.NO_ANSWER, hop)
        if not cases:
            self.notes.append(f"{self.case} passes; those that fail: {', '.join(sorted({r.case for r in failing}))}")
            return self._diagnosis(hop.verdict, Outcome.UNDECIDED, hop)
        if hop.hop == "traced":
            made = self._in_traced(cases)
        elif hop.hop == "simplified":
            made = self._in_simplified(cases, self._kept())
        else:
            made = self._in_artifact(key, cases, failing[0].form)
        if not made["births"] and key and self.manifest.targets[key].graphs:
            lowered = self._in_lowered(key, cases)
            if lowered["births"]:
                return self._concluded(replace(hop, hop="lowered"), lowered)
        if not made["births"] and not key and set(made["ends"].values()) <= {"right"}:
            self.notes.append(f"the {hop.hop} graph is right; {hop.facts.get('by')}, which ran it, is not")
            made = self._in_runner(hop.hop, cases)
        return self._concluded(hop, made)

    def of_pass(self, name: str) -> Diagnosis:
        """Looks into a pass that was dropped."""
        records = {record.name: record for graph in self.manifest.graphs.values() for record in graph.passes}
        if name not in records or records[name].verdict != "dropped":
            dropped = [record.name for record in records.values() if record.verdict == "dropped"]
            raise Refused(
                "unknown-pass",
                f"no pass {name!r} was dropped{nearest(name, list(records))}",
                where=f"bundle {self.bundle.path}",
                why=f"dropped were: {', '.join(dropped) or 'none'}",
                next=f"exporter diagnose {self.bundle.path}",
            )
        cases = sorted((c for c in self._cases() if c["steps"] == 1), key=self._size)[:CASES]
        made = self._in_simplified(cases, [*self._kept(), name], after="traced")
        hop = Hop("simplified", None, Verdict.FAIL, records[name].reason)
        return self._concluded(hop, made)

    def _concluded(self, hop: Hop, made: Mapping[str, Any]) -> Diagnosis:
        births = tuple(Birth.from_json(birth) for birth in made["births"])
        if births:
            outcome = Outcome.VANISHES if len(births[0].nodes) > 1 and hop.hop == "compiled" else Outcome.LOCATED
            others = sorted({birth.node for birth in births} - {births[0].node})
            if others:
                self.notes.append(f"other cases name {', '.join(others)}")
        else:
            outcome = ENDINGS[next(iter(made["ends"].values()), "right")]
            self.notes.append(MEANING[outcome])
        found = self._diagnosis(hop.verdict, outcome, hop, births)
        return replace(found, simplify_pass=made.get("pass"), runs=made["runs"], files={"part": made["part"]})

    def _diagnosis(
        self, verdict: Verdict, outcome: Outcome, hop: Hop | None = None, births: tuple[Birth, ...] = ()
    ) -> Diagnosis:
        return Diagnosis(
            self.manifest.model.name, str(self.bundle.path), weights_line(self.manifest.weights), verdict, outcome,
            hop.hop if hop else None, hop.target if hop else None,
            hop.precision.asked if hop and hop.precision else None, None, births, None, tuple(self.notes),
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------- children

    def _in_traced(self, cases: Sequence[Mapping[str, Any]]) -> Any:
        lacking = missing(self.manifest, self.code)
        if lacking:
            raise Refused(
                "samples-need-reference",
                f"tracing is to blame, and what was traced cannot be built here: {lacking}",
                where=f"bundle {self.bundle.path}",
                why="a graph is compared with what it was traced from",
                next=f"exporter diagnose {self.bundle.path} --checkpoint FILE, where torch is installed",
            )
        build = build_of(self.manifest, self.code)
        asked = {"build": build, "weights": self.manifest.weights.digest, "graphs": self._texts("traced")}
        return self._run("traced", "in_traced", cases, asked)

    def _in_simplified(
        self, cases: Sequence[Mapping[str, Any]], passes: Sequence[str], after: str = "simplified"
    ) -> Any:
        asked = {"before": self._texts("traced"), "graphs": self._texts(after), "passes": list(passes)}
        return self._run("simplified", "in_simplified", cases, asked)

    def _in_lowered(self, key: str, cases: Sequence[Mapping[str, Any]]) -> Any:
        graphs = {name: str(self.bundle.file(file)) for name, file in self.manifest.targets[key].graphs.items()}
        asked = {"before": self._texts("simplified"), "graphs": graphs, "passes": None}
        return self._run("lowered", "in_simplified", cases, asked)

    def _in_artifact(self, key: str, cases: Sequence[Mapping[str, Any]], form: str | None) -> Any:
        info = self.manifest.targets[key]
        made = ready(self.bundle.file, self.manifest, key, self.stages, self.opening)
        calibration = {}
        if info.calibration is not None and len(self.manifest.graphs) == 1:
            files = [str(self.bundle.file(file)) for file in info.calibration.files]
            calibration = {next(iter(self.manifest.graphs)): files}
        options = replace(made.options, calibration=calibration, kept=tuple(info.kept))
        asked = made.as_request() | {
            "options": options.__dict__, "target": info.target, "form": form or info.forms[0],
            "precision": info.precision, "graphs": self._texts("simplified")
            | {name: str(self.bundle.file(file)) for name, file in info.graphs.items()},
        }  # fmt: skip
        return self._run(key, "in_artifact", cases, asked)

    def _in_runner(self, hop: str, cases: Sequence[Mapping[str, Any]]) -> Any:
        asked = {
            "target": registry.graph_runners()[0].name, "form": None, "artifact": None, "precision": "fp32",
            "graphs": self._texts(hop), "options": options_of(self.manifest, "fp32", 0).__dict__,
        }  # fmt: skip
        return self._run(f"{hop}, run", "in_artifact", cases, asked)

    def _run(self, what: str, function: str, cases: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]) -> Any:
        self._places += 1
        place = self.folder / str(self._places)
        place.mkdir(parents=True)
        request = {**self._common(), **asked, "cases": list(cases), "folder": str(place)}
        return self.stages.run(f"diagnose {what}", f"exporter.diagnose.child:{function}", request)

    # ------------------------------------------------------------------------------------------------------ cases

    def _common(self) -> dict[str, Any]:
        return interface_of(self.manifest, options_of(self.manifest, "fp32", 0))

    def _cases(self) -> list[dict[str, Any]]:
        cases = case_files(self.bundle.file, self.manifest)
        names = [case["name"] for case in cases]
        if self.case and self.case not in names:
            raise Refused(
                "unknown-case",
                f"{self.bundle.path} holds no case {self.case!r}{nearest(self.case, names)}",
                where=f"bundle {self.bundle.path}",
                why=f"its cases are {', '.join(names)}",
                next=f"exporter inspect {self.bundle.path}",
            )
        return [case for case in cases if not self.case or case["name"] == self.case]

    def _smallest(self, wrong: Collection[str]) -> list[dict[str, Any]]:
        """The smallest of these cases, single calls before sequences."""
        found = sorted((c for c in self._cases() if c["name"] in wrong), key=lambda c: (c["steps"] > 1, self._size(c)))
        single = [case for case in found if case["steps"] == 1]
        return (single or found)[:CASES]

    def _size(self, case: Mapping[str, Any]) -> int:
        return Path(case["file"]).stat().st_size

    def _graphs(self, hop: str) -> dict[str, Path]:
        return {name: self.bundle.file(getattr(graph, hop)) for name, graph in self.manifest.graphs.items()}

    def _texts(self, hop: str) -> dict[str, str]:
        return {name: str(path) for name, path in self._graphs(hop).items()}

    def _kept(self) -> list[str]:
        """The passes that some graph was simplified by."""
        records = [record for graph in self.manifest.graphs.values() for record in graph.passes]
        return list(dict.fromkeys(record.name for record in records if record.verdict != "dropped"))

    # ----------------------------------------------------------------------------------------------- reproduction

    def reproduced(self, found: Diagnosis, path: Path) -> Diagnosis:
        """The diagnosis with a bundle of what fails by itself, where it does."""
        birth, part = found.birth, found.files["part"]
        assert birth is not None
        if part is None or not birth.alone:
            said = "no part of it fails by itself: compiled apart, all of them are right"
            return replace(found, notes=(*found.notes, said))
        target, info = self._runs(found)
        if info is not None and info.way in INTEGER:
            return replace(found, notes=(*found.notes, "scales of int8 are the whole model's: no bundle of a part"))
        try:
            hop = reproduction.write(path, self.manifest, part, birth.node, target, info, self.stages)
        except (StageFailed, NotProven) as error:
            return replace(found, notes=(*found.notes, f"it cannot be compiled by itself: {error.what}"))
        if hop.verdict is Verdict.FAIL:
            return replace(found, reproduction=str(path))
        return replace(found, notes=(*found.notes, f"its bundle {path} is {hop.verdict}: {hop.reason}"))

    def _runs(self, found: Diagnosis) -> tuple[Target, TargetInfo | None]:
        """What the part is compiled for: the target at fault; of a graph at fault, the first that runs here."""
        if found.target is not None:
            key = f"{found.target}/{found.precision}"
            return registry.target(found.target), self.manifest.targets[key]
        for info in self.manifest.targets.values():
            if info.precision == "fp32" and registry.target(info.target).available().present:
                return registry.target(info.target), info
        return registry.graph_runners()[0], None
