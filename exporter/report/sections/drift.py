"""Drift: a model with state runs on what it gave itself; the error after every step, beside eager's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.report import figures
from exporter.report.charts import plot
from exporter.report.charts.scale import Scale, logarithmic
from exporter.report.layout import Column, Section, bundle_word, charts, details, missing, paragraph, table
from exporter.report.markup import Content, Markup, joined
from exporter.report.values import Judged, Page

COLUMNS = (
    Column("sequence"),
    *(Column(name, "number") for name in ("steps", "first step", "median", "last", "largest", "eager's largest")),
)


def drift(page: Page) -> Section | None:
    """The section; none for a model without state, which cannot drift."""
    if not page.manifest.state:
        return None
    held = [judged for judged in page.artifacts_first if any(_curves(judged))]
    if not held:
        command = f"exporter verify {bundle_word(page.manifest)} --save"
        return Section("drift", "Drift over steps", missing("No report holds the error of each step.", command))
    why = paragraph(
        "Error of each step of a sequence that runs on its own fed-back state (solid), and eager PyTorch's own error "
        "at that step (broken). Where the solid curve rises away from the other, rounding accumulates."
    )
    return Section(
        "drift", "Drift over steps", joined(why, *(_hop(judged, f"drift-{index}") for index, judged in enumerate(held)))
    )


def _curves(judged: Judged) -> Iterator[tuple[str, str, list[float], list[float]]]:
    """Sequence, output, the error of each step, eager's."""
    for case, value in judged.facts.named("drift"):
        if value.numbers("error"):
            yield case, value.text("output"), value.numbers("error"), value.numbers("eager")


def _hop(judged: Judged, anchor: str) -> Markup:
    found = list(_curves(judged))
    drawn = [_chart(judged, *each, f"{anchor}-{index}") for index, each in enumerate(found)]
    rows = [_row(case, error, eager) for case, _, error, eager in found]
    shown = joined(charts(drawn), table(f"{judged.title}: error of each step", COLUMNS, rows))
    return shown if judged.hop.hop == "compiled" else details(f"{judged.title}: {judged.hop.verdict}", shown)


def _chart(
    judged: Judged, case: str, output: str, error: Sequence[float], eager: Sequence[float], anchor: str
) -> tuple[str, Markup]:
    # A step that is exact (silence) has no place on a logarithmic axis: it is drawn at its low end.
    y = logarithmic([*error, *eager])
    steps = max(len(error), len(eager))
    axes = plot.Axes(Scale(1.0, max(float(steps), 2.0)), y, figures.whole, figures.plain, "step", "relative error")
    curves = [plot.curve(axes, list(enumerate(values, 1)), kind)
              for values, kind in ((eager, "curve noise"), (error, "curve"))]  # fmt: skip
    title = f"{judged.title}, {case}, {output}"
    theirs = figures.plain(max(eager, default=None))
    said = f"{steps:,} steps; the largest error is {figures.plain(max(error))}, eager's {theirs}."
    return f"{title}: {said}", plot.plot(title, said, anchor, axes, *curves)


def _row(case: str, error: Sequence[float], eager: Sequence[float]) -> list[Content]:
    middle = sorted(error)[len(error) // 2]
    values = (error[0], middle, error[-1], max(error), max(eager, default=None))
    return [case, f"{len(error):,}", *(figures.plain(value) for value in values)]
