"""Defects planted in graphs, passes and artifacts, and whether `exporter diagnose` names the node, and how soon."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from exporter.bundle import Bundle, read_tensors, under
from exporter.diagnose import Diagnosis, diagnose
from exporter.diagnose.graphs import Against
from exporter.diagnose.known import Known, known
from exporter.errors import StageFailed
from exporter.graph import Graph
from exporter.verdict import Verdict
from tests.bench.figure import EXPORTER, Figure, at_least, at_most, whole
from tests.fakes.planting import EDITS, HOPS, Plant, candidates, planted

# Six networks, of sizes that a defect is found in within a minute or two.
MODELS = {
    "gtcrn": ["--dim", "T=2:33:80"],
    "gtcrn-stream": [],
    "extractor-vit": ["--dim", "batch=1"],
    "restormer": [*(f"--set={text}" for text in ("dim=16", "blocks=1,1,1,2", "refinement=1")), "--dim", "H=64",
                  "--dim", "W=64"],
    "raft-stereo": ["--set=iterations=2", "--dim", "H=64", "--dim", "W=64"],
    "fusion-decoder": ["--dim", "T=1:33:80"],
}  # fmt: skip
TARGETS = ("mobile", "openvino")
EACH = 10
# A defect counts from so many times rounding's own error in the answer on: what passes every bound is none.
ABOVE = 64.0
TRIED = 12


@dataclass(frozen=True)
class Tried:
    """One defect, and what came of it."""

    model: str
    plant: Plant
    target: str
    found: Diagnosis
    seconds: float

    @property
    def hit(self) -> bool:
        """Whether the node that is named is the planted one, or follows it directly."""
        birth = self.found.birth
        return birth is not None and self.plant.named(birth.node)

    @property
    def reproduces(self) -> bool:
        """Whether a bundle of a part was written that fails."""
        return self.found.reproduction is not None

    def line(self) -> str:
        """In a line, for whoever waits."""
        birth = self.found.birth
        named = f"{birth.node} ({birth.operator})" if birth else f"nothing: {self.found.outcome.value}"
        where = f"{self.plant.hop}{f' {self.target}' if self.plant.hop == 'compiled' else ''}"
        return (
            f"{'hit ' if self.hit else 'MISS'} {self.model}, {where}, {self.plant.kind} at {self.plant.node}: "
            f"named {named}, {self.seconds:.0f} s{'' if self.reproduces else f', no bundle ({self.found.notes[-1:]})'}"
        )


def figures(folder: Path) -> list[Figure]:
    """How many of 60 are named, how long the longest took, and how many failing parts fail by themselves."""
    tried = list(everything(folder))
    hits = [one for one in tried if one.hit]
    missed = "; ".join(one.line() for one in tried if not one.hit)
    slowest = max(tried, key=lambda one: one.seconds)
    by_kind = {kind: [one.hit for one in tried if one.plant.kind == kind] for kind in EDITS}
    note = ", ".join(f"{kind} {sum(hit)} of {len(hit)}" for kind, hit in by_kind.items())
    label = f"{len(tried)} planted defects in {len(MODELS)} models"
    return [
        at_least(f"{label}: `diagnose` names the node or its direct successor", 90, 100 * len(hits) / len(tried), "%",
                 note=note + (f". {missed}" if missed else "")),
        at_most(f"{label}: the longest diagnosis", 180, slowest.seconds, " s", note=slowest.line()),
        at_least(f"{label}: a bundle of the failing part was written, and fails", 90,
                 100 * sum(one.reproduces for one in tried) / len(tried), "%"),
    ]  # fmt: skip


def everything(folder: Path, models: dict[str, list[str]] | None = None, each: int = EACH) -> Iterator[Tried]:
    """Plants and diagnoses, model by model; every kind comes as often."""
    for number, (model, words) in enumerate((models or MODELS).items()):
        bundle = folder / f"{model}.diagnosed.bundle"
        for target in TARGETS:
            whole([EXPORTER, target, model, *words, "--no-profile", "-o", bundle.name], folder)
        seen = set[tuple[str, str, str]]()
        for index in range(each):
            tried = _next(model, bundle, number, index, seen)
            print(tried.line() if tried else f"nothing to plant in {model}", file=sys.stderr, flush=True)
            if tried is not None:
                yield tried


def _next(model: str, bundle: Path, number: int, index: int, seen: set[tuple[str, str, str]]) -> Tried | None:
    """A defect of the kind whose turn it is; of the next kind where a model has no node for it that is not had yet."""
    kinds = list(EDITS)
    for turn in range(len(kinds)):
        kind = kinds[(number + index + turn) % len(kinds)]
        hop = {"broken pass": "simplified", "lowered precision": "compiled"}.get(kind, HOPS[index % len(HOPS)])
        tried = _tried(model, bundle, kind, hop, TARGETS[index % 2], seed=index, seen=seen)
        if tried is not None:
            seen.add(_same(tried.plant))
            return tried
    return None


def _same(plant: Plant) -> tuple[str, str, str]:
    return plant.kind, plant.hop, plant.node


def _tried(
    model: str,
    bundle: Path,
    kind: str,
    hop: str,
    target: str,
    seed: int,
    seen: Collection[tuple[str, str, str]] = (),
) -> Tried | None:
    """The first defect of a kind that some case shows and that was not seen."""
    opened = Bundle.open(bundle)
    (name,) = opened.manifest.graphs
    files = opened.manifest.graphs[name]
    graph = Graph(opened.file(files.traced if hop == "traced" else files.simplified)).load()
    case = min((opened.file(case.file) for case in opened.manifest.cases if case.steps == 1), key=os.path.getsize)
    feeds = under(read_tensors(case), "input/")
    right = known(graph, feeds, bundle.parent / "right")
    plants = (plant for plant in candidates(graph, kind, hop, name, seed) if _same(plant) not in seen)
    for plant in islice(plants, TRIED):
        if _shows(plant, graph, feeds, right):
            with contextlib.suppress(StageFailed):  # what no target compiles any more is no wrong answer
                tried = _diagnosed(model, bundle, plant, target)
                if tried.found.verdict is Verdict.FAIL:
                    right.drop()
                    return tried
    right.drop()
    return None


def _shows(plant: Plant, graph: object, feeds: dict[str, object], right: Known) -> bool:
    """Whether a defect changes the answer, and leaves its form as it is."""
    against = Against(plant.into(graph), feeds, right)  # type: ignore[arg-type]
    return against.broken is None and ABOVE < max(against.final.values()) < float("inf")


def _diagnosed(model: str, bundle: Path, plant: Plant, target: str) -> Tried:
    copy = bundle.with_name("planted.bundle")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bundle, copy)
    failing = bundle.with_name("failing.bundle")
    with _quiet(), planted(plant, copy, target):
        started = time.monotonic()
        found = diagnose(copy, target, output=failing)
        seconds = time.monotonic() - started
    shutil.rmtree(failing, ignore_errors=True)
    return Tried(model, plant, target, found, seconds)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What tools print in this process goes nowhere: in a child it goes to its log."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
