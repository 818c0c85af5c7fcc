"""How element errors are spread: a histogram per hop and output, over the elements of all cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.parity.ladder import UNIT_ROUNDOFF
from exporter.report import figures
from exporter.report.charts import plot
from exporter.report.charts.scale import Scale
from exporter.report.layout import Column, Section, bundle_word, charts, details, missing, paragraph, table
from exporter.report.markup import Content, Markup, joined
from exporter.report.reading import Fields
from exporter.report.values import Judged, Page

COLUMNS = (Column("error of an element"), Column("elements", "number"), Column("share", "number"))
MOST = 12  # outputs of one hop that are drawn
MOST_POWER = 100.0  # of ten


def spread(page: Page) -> Section:
    """The section."""
    held = [judged for judged in page.artifacts_first if judged.facts.fields("histograms")]
    if not held:
        command = f"exporter verify {bundle_word(page.manifest)} --save"
        return Section("spread", "How errors are spread", missing("No report holds the errors of elements.", command))
    why = paragraph(
        "Errors of single elements over all cases, in units of the reference's root mean square. The line is the unit "
        "roundoff of the precision: half of the last place of a number near 1."
    )
    artifacts = [judged for judged in held if judged.hop.hop == "compiled"]
    graphs = [judged for judged in held if judged.hop.hop != "compiled"]
    shown = [_shown(artifacts, "artifacts")]
    shown += [details("The graphs they are made from", _shown(graphs, "graphs"))] if graphs else []
    return Section("spread", "How errors are spread", joined(why, *shown))


def _shown(held: Sequence[Judged], part: str) -> Markup:
    """A chart for each output of each hop, and the same as tables."""
    found = [(judged, *each) for judged in held for each in list(_outputs(judged))[:MOST]]
    drawn = [_chart(judged, name, value, f"spread-{part}-{index}") for index, (judged, name, value) in enumerate(found)]
    tables = [_table(judged, name, value) for judged, name, value in found]
    return joined(charts(drawn), details("The same as numbers", *tables, kind="numbers")) if found else Markup("")


def _outputs(judged: Judged) -> Iterator[tuple[str, Fields]]:
    yield from ((name, value) for name, value in judged.facts.named("histograms") if value.numbers("counts"))


def _pieces(value: Fields) -> list[tuple[float, float, float]]:
    """The pieces that hold anything: from which power of ten, to which, and how many elements."""
    first, step = value.number("first_power") or 0.0, abs(value.number("step") or 0.5)
    counts = [max(count, 0.0) for count in value.numbers("counts")]
    if (
        min(first, first + step * len(counts)) < -MOST_POWER
        or max(first, step, first + step * len(counts)) > MOST_POWER
    ):
        return []  # of no histogram that was counted here
    last = max((index for index, count in enumerate(counts) if count), default=-1)
    start = next((index for index, count in enumerate(counts) if count), 0)
    return [(first + i * step, first + (i + 1) * step, counts[i]) for i in range(start, last + 1)]


def _chart(judged: Judged, output: str, value: Fields, anchor: str) -> tuple[str, Markup]:
    pieces, exact = _pieces(value), value.number("exact") or 0.0
    total = exact + sum(count for _, _, count in pieces)
    highest = max((count / total for _, _, count in pieces), default=1.0)
    roundoff = UNIT_ROUNDOFF.get(judged.key[2] or "fp32", UNIT_ROUNDOFF["fp32"])
    ends = [10.0**power for piece in pieces for power in piece[:2]] + [roundoff]
    axes = plot.Axes(
        Scale(min(ends), max(*ends, min(ends) * 10), log=True), Scale(0.0, highest * 1.08),
        figures.plain, figures.share_tick, "error / size of the output", "elements",
    )  # fmt: skip
    bars = [plot.bar(axes, 10.0**low, 10.0**high, count / total, "bar") for low, high, count in pieces if count]
    title = f"{judged.title}, {output}"
    middle = figures.plain(_middle(pieces))
    said = f"{total:,.0f} elements, {exact:,.0f} of them exact; half of the others are off by less than {middle}."
    chart = plot.plot(title, said, anchor, axes, *bars, plot.rule(axes, roundoff, "noise"))
    return f"{title}: {said}", chart


def _middle(pieces: Sequence[tuple[float, float, float]]) -> float | None:
    """Where half of the elements lie below, to the piece."""
    left = sum(count for _, _, count in pieces) / 2
    for _, high, count in pieces:
        left -= count
        if left <= 0:
            return float(10.0**high)
    return None


def _table(judged: Judged, output: str, value: Fields) -> Markup:
    pieces, exact = _pieces(value), value.number("exact") or 0.0
    total = max(exact + sum(count for _, _, count in pieces), 1.0)
    rows: list[list[Content]] = [["exact", f"{exact:,.0f}", figures.share(exact / total)]]
    for low, high, count in pieces:
        rows.append([f"{figures.plain(10.0**low)} to {figures.plain(10.0**high)}", f"{count:,.0f}",
                     figures.share(count / total)])  # fmt: skip
    return table(f"{judged.title}, {output}: errors of elements", COLUMNS, rows)
