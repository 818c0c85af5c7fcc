"""Errors: per case and output, beside eager's own error and the bound, on one logarithmic axis for the whole page."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.report import figures
from exporter.report.charts import strip
from exporter.report.charts.scale import Scale, logarithmic
from exporter.report.ladder import bound_of, yardstick_of
from exporter.report.layout import Column, Section, bundle_word, details, missing, paragraph, table, word
from exporter.report.markup import Content, Markup, joined, tag
from exporter.report.values import Judged, Page
from exporter.verdict import Result, Verdict


def errors(page: Page) -> Section:
    """The section."""
    held = [judged for judged in page.artifacts_first if judged.hop.results]
    if not held:
        command = f"exporter verify {bundle_word(page.manifest)} --save"
        return Section("errors", "Error against noise", missing("No report holds errors per case.", command))
    scale = logarithmic(_values(held))
    why = paragraph(
        "Relative error, |y − y64| / |y64|, of every case and output: ", _key("dot good", "the error"), ", ",
        _key("noise", "eager PyTorch's own in that precision"), " and ", _key("bound", "what is allowed"),
        ". The axis is logarithmic and the same in all tables.",
    )  # fmt: skip
    unbounded = [judged.title for judged in held if not judged.facts.fields("rung")]
    if unbounded:
        command = f"exporter verify {bundle_word(page.manifest)} --save"
        why = joined(why, missing(f"What was allowed was not kept for {figures.listed(unbounded)}.", command))
    # Artifacts stay open; the graph hops explain them, and can be unfolded.
    return Section("errors", "Error against noise", joined(why, *(_hop(judged, scale) for judged in held)))


def _key(kind: str, meaning: str) -> Markup:
    """A mark of the charts with what it means."""
    mark = (
        tag("circle", cx=7, cy=7, r="4.5", class_=kind)
        if kind.startswith("dot")
        else tag("line", x1=7, x2=7, y1=1, y2=13, class_=kind)
    )
    return joined(tag("svg", mark, width=14, height=14, class_="key", aria_hidden="true"), " ", meaning)


def _values(held: Sequence[Judged]) -> list[float]:
    """Every value that the axis has to hold."""
    found: list[float] = []
    for judged in held:
        for result in judged.hop.results:
            found += [x for x in (result.relative_l2, yardstick_of(result), bound_of(judged, result)) if x]
    return found


def _hop(judged: Judged, scale: Scale) -> Markup:
    columns = (
        Column("case"),
        Column("output"),
        Column("verdict"),
        Column(strip.axis(scale, figures.plain), "chart"),
        *(Column(name, "number") for name in ("error", "eager's own", "ratio", "largest", "elements")),
    )
    several = len({result.form for result in judged.hop.results}) > 1
    rows = [_row(judged, result, scale, several) for result in judged.hop.results]
    shown = table(judged.title, columns, rows, "errors")
    return shown if judged.hop.hop == "compiled" else details(f"{judged.title}: {judged.hop.verdict}", shown)


def _row(judged: Judged, result: Result, scale: Scale, several: bool) -> list[Content]:
    case = f"{result.case} ({result.form})" if several else result.case
    said = joined(word(result.verdict.value), *([f" {result.reason}"] if result.reason else []))
    return [
        case,
        result.output,
        joined(said, *(tag("small", f" {note}") for note in result.notes)),
        _strip(judged, result, scale),
        figures.plain(result.relative_l2),
        figures.plain(yardstick_of(result)),
        figures.factor(result.amplification),
        figures.plain(result.max_abs),
        f"{result.elements:,}",
    ]


def _strip(judged: Judged, result: Result, scale: Scale) -> Markup:
    marks = [strip.grid(scale)]
    noise, bound, error = yardstick_of(result), bound_of(judged, result), result.relative_l2
    if noise:
        marks.append(strip.line(scale, noise, "noise", top=4))
    if bound:
        marks.append(strip.line(scale, bound, "bound"))
    if error is not None:
        # An exact answer has no place on a logarithmic axis: it lies at its end.
        marks.append(strip.dot(scale, error, "dot good" if result.verdict is Verdict.PASS else "dot bad"))
    return strip.strip(*marks)
