"""The parent: finds the first hop that is wrong, has the children look into it, and words what they found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exporter.bundle import Bundle
from exporter.diagnose import reproduction
from exporter.diagnose.asking import Asking
from exporter.diagnose.cases import cases_of, smallest
from exporter.diagnose.result import Birth, Diagnosis, Outcome
from exporter.errors import Incomplete, Refused, nearest
from exporter.hops import artifact_hop, case_files, graph_hop
from exporter.isolate import Limits
from exporter.manifest import Manifest
from exporter.models.rebuild import Code
from exporter.preflight import Opening
from exporter.stages import STAGE_SECONDS, Progress, Stages, scratch, silent
from exporter.verdict import Hop, Verdict
from exporter.verification import chosen, refuse_missing_checkpoint, weights_line

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
        work = Work(Asking(bundle, stages, folder / "diagnose", opening or Opening(), code or Code()), case)
        found = (
            work.of_pass(simplify_pass) if simplify_pass else work.of_hops(chosen(bundle, [target] if target else ()))
        )
        if found.birth is not None:
            found = reproduction.reproduced(found, bundle, output or Path(f"{_stem(path)}.failing.bundle"), stages)
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
        asking: the bundle, and what the children say of it.
        case: the only case to look at, where one was named.
        notes: what else is worth knowing.
    """

    asking: Asking
    case: str
    notes: list[str] = field(default_factory=list)

    @property
    def bundle(self) -> Bundle:
        """What is diagnosed."""
        return self.asking.bundle

    @property
    def manifest(self) -> Manifest:
        """What it says of itself."""
        return self.bundle.manifest

    def of_hops(self, keys: Sequence[str]) -> Diagnosis:
        """Looks into the first hop that is no PASS."""
        cases_of(self.bundle, self.case)  # one that is not there is refused before any work
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

    def _hops(self, keys: Sequence[str]) -> Iterator[tuple[Hop, str]]:
        # All cases are judged, whichever is asked for: whether an output ever moves is seen over all of them.
        asking, cases = self.asking, case_files(self.bundle.file, self.manifest)
        for hop in ("traced", "simplified"):
            yield graph_hop(asking.stages, hop, asking.graphs(hop), asking.common, cases), ""
        for key in keys:
            yield artifact_hop(self.bundle.file, self.manifest, key, asking.stages, opening=asking.opening), key

    def _looked(self, hop: Hop, key: str) -> Diagnosis:
        failing = [result for result in hop.results if result.verdict is not Verdict.PASS]
        known = cases_of(self.bundle, self.case)
        cases = smallest(known, {result.case for result in failing} or {case["name"] for case in known})
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
            made = self.asking.in_traced(cases)
        elif hop.hop == "simplified":
            made = self.asking.in_simplified(cases, self._kept())
        else:
            made = self.asking.in_artifact(key, cases, failing[0].form)
        if not made["births"] and key and self.manifest.targets[key].graphs:
            lowered = self.asking.in_lowered(key, cases)
            if lowered["births"]:
                return self._concluded(replace(hop, hop="lowered"), lowered)
        if not made["births"] and not key and set(made["ends"].values()) <= {"right"}:
            self.notes.append(f"the {hop.hop} graph is right; {hop.facts.get('by')}, which ran it, is not")
            made = self.asking.in_runner(hop.hop, cases)
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
        single = [case for case in cases_of(self.bundle, self.case) if case["steps"] == 1]
        cases = smallest(single, {case["name"] for case in single})
        made = self.asking.in_simplified(cases, [*self._kept(), name], after="traced")
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

    def _kept(self) -> list[str]:
        """The passes that some graph was simplified by."""
        records = [record for graph in self.manifest.graphs.values() for record in graph.passes]
        return list(dict.fromkeys(record.name for record in records if record.verdict != "dropped"))
