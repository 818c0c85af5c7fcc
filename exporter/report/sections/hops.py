"""The hops: eager to traced, simplified, lowered, compiled, each judged by itself, so that blame has a place."""

from __future__ import annotations

from exporter.report import figures
from exporter.report.layout import Column, Section, bullets, bundle_word, details, missing, paragraph, table, word
from exporter.report.markup import Content, Markup, joined
from exporter.report.values import Judged, Page

COLUMNS = (
    Column("hop"), Column("verdict"), Column("precision that ran"), Column("error / eager's own", "number"),
    Column("worst case"), Column("compared", "number"), Column("runtime of"),
)  # fmt: skip
PASSES = (Column("pass"), Column("what became of it"), Column("reason"))


def hops(page: Page) -> Section:
    """The section."""
    if not page.hops:
        command = f"exporter verify {bundle_word(page.manifest)} --save"
        return Section("hops", "Hops", missing("No report of the bundle holds a verdict.", command))
    why = "Each edge from eager PyTorch to the artifact is judged by itself, against the float64 reference."
    body = [paragraph(why), table("Hops", COLUMNS, [_row(judged) for judged in page.hops])]
    notes = [joined(f"{judged.title}: ", line) for judged in page.hops for line in _notes(judged)]
    return Section("hops", "Hops", joined(*body, bullets(notes), _passes(page)))


def _row(judged: Judged) -> list[Content]:
    hop, worst = judged.hop, judged.hop.worst_result
    cases = len({(result.case, result.form) for result in hop.results})
    values = sum(result.elements for result in hop.results)
    said = judged.facts.fields("worst") if worst is None else None
    amplification = worst.amplification if worst else said.number("amplification") if said else None
    return [
        judged.title,
        word(hop.verdict.value),
        (hop.precision.ran if hop.precision else None) or figures.NONE,
        figures.factor(amplification),
        worst.case if worst else figures.NONE,
        f"{figures.counted(cases, 'case')}, {values:,} values" if hop.results else "not kept",
        judged.facts.text("by") or (hop.target or figures.NONE),
    ]


def _notes(judged: Judged) -> list[str]:
    """What is true of a hop beside its figures."""
    facts, found = judged.facts, list[str]()
    if facts.text("log"):
        found.append(f"log: {facts.text('log')}")
    if facts.text("budget"):
        found.append(f"budget {facts.text('budget')}")
    left = facts.fields("undecided")
    if left:
        found.append(
            f"{left.count('left')} of {left.count('of')} whole numbers hang on rounding alone, and are left out"
        )
    return [*found, *facts.texts("advice")]


def _passes(page: Page) -> Markup:
    """What became of each simplification."""
    rows = [
        [
            f"{name}: {record.name}" if len(page.manifest.graphs) > 1 else record.name,
            word(record.verdict),
            record.reason,
        ]
        for name, graph in page.manifest.graphs.items()
        for record in graph.passes
    ]
    kept = sum(record.verdict == "kept" for graph in page.manifest.graphs.values() for record in graph.passes)
    summary = f"{figures.counted(len(rows), 'simplify pass', 'simplify passes')}, {kept} kept"
    return details(summary, table("Simplify passes", PASSES, rows)) if rows else Markup("")
