"""What ran: shares of precisions and of providers, as the runtime itself says, and the nodes that stay out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.report import figures
from exporter.report.charts import strip
from exporter.report.charts.scale import Scale
from exporter.report.layout import Column, Section, bundle_word, details, missing, paragraph, table
from exporter.report.markup import Content, Markup, joined
from exporter.report.values import Judged, Page

COLUMNS = (
    Column("artifact"), Column("share of"), Column("parts"), Column("", "chart"),
)  # fmt: skip
KEPT = (Column("node"), Column("module"), Column("why"))
TONES = 5


def ran(page: Page) -> Section:
    """The section."""
    rows, tones = list[list[Content]](), dict[str, int]()
    for judged in page.hops:
        if judged.hop.hop == "compiled":
            rows += _rows(judged, page.manifest.targets[judged.artifact].forms, tones)
    kept = joined(*map(_kept, page.hops))
    if not rows:
        command = f"exporter verify {bundle_word(page.manifest)} --save"
        return Section("ran", "What ran", joined(missing("No report says what ran.", command), kept))
    why = paragraph("As the runtime itself says, not as it was asked.")
    return Section("ran", "What ran", joined(why, table("Precisions and providers", COLUMNS, rows), kept))


def _rows(judged: Judged, forms: Sequence[str], tones: dict[str, int]) -> list[list[Content]]:
    """Multiplications by precision, then layers by precision and nodes by provider of each form."""
    facts, name = judged.facts, judged.named
    found = [_row(name, "multiplications", facts.counted("work"), tones, whole=False)]
    for form in forms:
        said, label = facts.fields(form), f"{name} ({form})" if len(forms) > 1 else name
        found.append(_row(label, "layers by precision", said.counted("layers"), tones))
        found.append(_row(label, "nodes by provider", said.counted("providers"), tones))
    return [row for row in found if row]


def _row(name: str, of: str, parts: Mapping[str, float], tones: dict[str, int], whole: bool = True) -> list[Content]:
    ordered = sorted(((key, value) for key, value in parts.items() if value > 0), key=lambda item: (-item[1], item[0]))
    total = sum(value for _, value in ordered)
    if not total:
        return []
    said = ", ".join(
        f"{key} {figures.share(value / total)}" + (f" ({value:,.0f})" if whole else "") for key, value in ordered
    )
    return [name, of, said, _bar(ordered, total, tones)]


def _bar(parts: Sequence[tuple[str, float]], total: float, tones: dict[str, int]) -> Markup:
    """The parts beside one another; a word has the same tone in every row."""
    scale, at, marks = Scale(0.0, total), 0.0, list[Markup]()
    for key, value in parts:
        tone = tones.setdefault(key, len(tones)) % TONES
        marks.append(strip.span(scale, at, at + value, f"part tone{tone}", 3, 12))
        at += value
    return strip.strip(*marks)


def _kept(judged: Judged) -> Markup:
    """The nodes that stay out of a lower precision, each with the reason."""
    kept, modules = judged.facts.worded("kept"), judged.facts.worded("modules")
    if not kept:
        return Markup("")
    rows = [[node, modules.get(node, ""), reason] for node, reason in kept.items()]
    caption = f"{judged.title}: nodes that stay out of {judged.key[2]}"
    return details(f"{judged.title}: {figures.counted(len(kept), 'node')} kept out", table(caption, KEPT, rows))
