"""Lower: a simplified float32 graph becomes one that computes in a lower precision, written into its types.

For targets that take the precision from the graph. What stays in float32 is found by measuring (:mod:`ranges`) and
named with its reason. The lowered graph has a hop of its own, judged on this machine before anything is compiled: every
value rounded to its declared type (:mod:`rounding`), against eager in the same precision
(:mod:`exporter.lowered_eager`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter import folders
from exporter.budget import Budget
from exporter.errors import NotProven
from exporter.graph import OPSET
from exporter.hops import case_files, interface_of, lowered_hop, scaled_hop
from exporter.manifest import Manifest
from exporter.parity.ladder import QUANTISED_RUNG
from exporter.preflight import PathOf, options_of
from exporter.program import program_of
from exporter.stages import Stages
from exporter.target import WRITTEN, Target
from exporter.verdict import Hop, Verdict

# A search looks at the cases that fail, and at most so often: what it keeps for one may not be enough for another.
ROUNDS = 2
CASES = 2
SEARCH_SECONDS = 600.0
# Where the error is within its bound and a task metric is not, and where a quantiser erred more than a search foresaw,
# the search is for so much less error.
MORE_DECIBELS = 6.0


# Precisions that hold whatever float32 does.
HELD = frozenset({"fp32", "tf32", "bf16", "int8"})


@dataclass(frozen=True)
class Lowered:
    """The graphs of a precision and their verdict."""

    graphs: Mapping[str, Path]
    hop: Hop


def yardstick(
    manifest: Manifest, path_of: PathOf, build: Mapping[str, Any], precision: str, file: Path, stages: Stages
) -> None:
    """Writes eager's own error in a precision over the bundle's cases.

    Raises:
        NotProven: ``unstable-weights`` if the module that was built again is not the one of the references.
    """
    cases = [case.__dict__ | {"file": str(path_of(case.file))} for case in manifest.cases]
    asked = {"build": build, "precision": precision, "cases": cases, "file": str(file)}
    made = stages.run(f"eager {precision}", "exporter.reference:write_yardstick", asked)
    if made["weights"]["digest"] != manifest.weights.digest:
        raise NotProven(
            "unstable-weights",
            "two builds of the model gave different weights",
            where=f"model {manifest.model.name}",
            why="the yardstick and the reference would be of two models",
            next="make the definition's build depend on its arguments alone",
        )


def rewrites(target: Target, precision: str, way: str) -> bool:
    """Whether a target takes other graphs than the simplified ones: of a lower precision, or another operator set."""
    return way in WRITTEN or target.opset_of(precision, way) not in (None, OPSET)


def beyond(manifest: Manifest, path_of: PathOf, precision: str, folder: Path, stages: Stages) -> dict[str, str]:
    """The nodes whose values a precision cannot hold at all, over the bundle's cases; each with the reason."""
    if precision in HELD:
        return {}
    folder.mkdir(parents=True)
    asked = {
        "precision": precision,
        "graphs": {name: str(path_of(graph.simplified)) for name, graph in manifest.graphs.items()},
        "lowered": {name: str(folder / f"{name}.onnx") for name in manifest.graphs},
        "cases": case_files(path_of, manifest),
        "program": program_of(manifest).as_json(),
        "options": options_of(manifest, "fp32", 0).__dict__,
    }
    return _by_node(stages.run(f"ranges {precision}", "exporter.lower.worker:scanning", asked))


def lowered(
    manifest: Manifest,
    path_of: PathOf,
    precision: str,
    yardsticks: Sequence[Path],
    folder: Path,
    stages: Stages,
    opset: int | None = None,
) -> Lowered:
    """Writes every graph of a bundle as a target wants it, and judges what came of it.

    Args:
        manifest: a bundle's, with its graphs and cases.
        path_of: where a file of it lies.
        precision: the precision to write into the graphs.
        yardsticks: files of eager's own error in it.
        folder: an empty place to write to.
        stages: runs the children.
        opset: the operator set to write them in; None leaves it.
    """
    folder.mkdir(parents=True)
    graphs = {name: folder / f"{name}.{precision}.onnx" for name in manifest.graphs}
    rounded = {name: folder / f"{name}.{precision}.rounded.onnx" for name in manifest.graphs}
    cases = case_files(path_of, manifest)
    asked = {
        "precision": precision,
        "opset": opset,
        "graphs": {name: str(path_of(graph.simplified)) for name, graph in manifest.graphs.items()},
        "lowered": {name: str(path) for name, path in graphs.items()},
        "rounded": {name: str(path) for name, path in rounded.items()},
        "cases": cases,
        "program": program_of(manifest).as_json(),
        "options": options_of(manifest, "fp32", 0).__dict__,
    }
    made = stages.run(f"lower {precision}", "exporter.lower.worker:stage", asked)
    hop = lowered_hop(stages, rounded, manifest, cases, yardsticks, precision)
    search: dict[str, Any] = {}
    for _ in range(ROUNDS):
        failing = _failing(hop, cases)
        if not yardsticks or not failing:
            break
        more = interface_of(manifest, options_of(manifest, "fp32", 0)) | {
            "cases": failing, "beside": cases, "kept": made["kept"], "yardsticks": [str(path) for path in yardsticks],
            "memory": str(folders.cache() / "search"), "seconds": SEARCH_SECONDS, "folder": str(folder),
        }  # fmt: skip
        made = stages.run(f"search {precision}", "exporter.lower.worker:searching", asked | more)
        search = made["search"]
        hop = lowered_hop(stages, rounded, manifest, cases, yardsticks, precision)
    kept, modules = _by_node(made["kept"]), _by_node(made["modules"])
    facts = {"kept": kept, "modules": modules, "nodes": sum(made["nodes"].values())} | (
        {"search": search} if search else {}
    )
    return Lowered(graphs, replace(hop, facts={**hop.facts, **facts}))


def scaled(
    manifest: Manifest,
    path_of: PathOf,
    feeds: Mapping[str, Sequence[str]],
    budget: Budget,
    calibrated_on: frozenset[str] | None,
    kept: Mapping[str, str],
    folder: Path,
    stages: Stages,
) -> Lowered:
    """Writes Q/DQ into every graph of a bundle, by the quantiser that is here, and judges what came of it.

    Args:
        manifest: a bundle's, with its graphs and cases.
        path_of: where a file of it lies.
        feeds: by graph, files of the inputs that scales are taken from.
        budget: what int8 may cost.
        calibrated_on: the scales of cases that are judged; all where None.
        kept: the nodes to leave out.
        folder: an empty place to write to.
        stages: runs the children.
    """
    folder.mkdir(parents=True)
    graphs = {name: folder / f"{name}.int8.onnx" for name in manifest.graphs}
    cases = case_files(path_of, manifest)
    asked = {
        "graphs": {name: str(path_of(graph.simplified)) for name, graph in manifest.graphs.items()},
        "lowered": {name: str(path) for name, path in graphs.items()},
        "feeds": {name: list(files) for name, files in feeds.items()},
        "kept": _by_graph(manifest, kept),
    }
    made = stages.run("lower int8", "exporter.lower.worker:scaling", asked)
    hop = scaled_hop(stages, graphs, manifest, cases, budget, calibrated_on)
    left = {**kept, **{node: why for node, why in _by_node(made["left"]).items() if node not in kept}}
    facts = {"kept": left, "modules": _by_node(made["modules"]), "nodes": sum(made["nodes"].values())}
    return Lowered(graphs, replace(hop, facts={**hop.facts, **facts}))


def _by_graph(manifest: Manifest, kept: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What :func:`_by_node` joined, apart again."""
    if len(manifest.graphs) == 1:
        return {name: dict(kept) for name in manifest.graphs}
    return {
        name: {node.removeprefix(f"{name}."): why for node, why in kept.items() if node.startswith(f"{name}.")}
        for name in manifest.graphs
    }


@dataclass(frozen=True)
class Sensitive:
    """The nodes that int8 does not do for, each with the reason and its module, and what finding them took."""

    kept: Mapping[str, str]
    modules: Mapping[str, str]
    facts: Mapping[str, Any]


def sensitive(
    manifest: Manifest,
    path_of: PathOf,
    feeds: Mapping[str, Sequence[str]],
    budget: Budget,
    hop: Hop,
    kept: Mapping[str, str],
    before: int,
    stages: Stages,
    folder: Path,
) -> Sensitive:
    """Finds which products bring more error than is allowed when their inputs have eight bits.

    Args:
        manifest: a bundle's, with its graphs and cases.
        path_of: where a file of it lies.
        feeds: by graph, files of the inputs that scales are taken from.
        budget: what int8 may cost.
        hop: what was judged too far off; the cases that are off by most are searched on.
        kept: the nodes that are left out already.
        before: how many searches came before this one, and did not help enough.
        stages: runs the child.
        folder: a place to write to.
    """
    asked = budget.decibels if budget.decibels is not None else QUANTISED_RUNG.decibels
    found = hop.facts.get("spent", {}).get("decibels")
    assert asked is not None
    goal = asked + before * MORE_DECIBELS if found is None or found < asked else found + MORE_DECIBELS
    off = {r.case: max(r.relative_l2 or 0.0, 0.0) for r in sorted(hop.results, key=lambda r: r.relative_l2 or 0.0)}
    worst = sorted(off, key=lambda name: off[name], reverse=True)[:CASES]
    if not worst:
        return Sensitive({}, {}, {})
    folder.mkdir(parents=True, exist_ok=True)
    cases = case_files(path_of, manifest)
    request = interface_of(manifest, options_of(manifest, "fp32", 0)) | {
        "precision": "int8", "decibels": goal, "kept": _by_graph(manifest, kept), "folder": str(folder),
        "yardsticks": [], "feeds": {name: list(files) for name, files in feeds.items()},
        "graphs": {name: str(path_of(graph.simplified)) for name, graph in manifest.graphs.items()},
        "cases": [case for case in cases if case["name"] in worst], "beside": cases,
        "memory": str(folders.cache() / "search"), "seconds": SEARCH_SECONDS,
    }  # fmt: skip
    made = stages.run("search int8", "exporter.lower.worker:weighing", request)
    more = {node: why for node, why in _by_node(made["kept"]).items() if node not in kept}
    return Sensitive(more, _by_node(made["modules"]), made["search"])


def _by_node(by_graph: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What is known of the nodes of all graphs; of several, under ``GRAPH.NODE``."""
    several = len(by_graph) > 1
    return {
        f"{graph}.{node}" if several else node: what
        for graph, nodes in by_graph.items()
        for node, what in nodes.items()
    }


def _failing(hop: Hop, cases: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The cases that are off by most, in the order they stand; none where something else than values is wrong."""
    if hop.verdict is not Verdict.FAIL:
        return []
    off: dict[str, float] = {}
    for result in hop.results:
        if result.verdict is not Verdict.PASS:
            off[result.case] = max(off.get(result.case, 0.0), result.relative_l2 or float("inf"))
    worst = sorted(off, key=lambda name: off[name], reverse=True)[:CASES]
    return [case for case in cases if case["name"] in worst]
