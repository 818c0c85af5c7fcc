"""Without a pause: whether each artifact holds its speed, with clocks, heat and energy where they are told."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.report import figures
from exporter.report.charts import plot
from exporter.report.charts.scale import Scale, linear
from exporter.report.layout import Column, Section, bullets, charts, paragraph, table
from exporter.report.markup import Content, Markup, joined
from exporter.report.reading import Fields
from exporter.report.values import Page

ENERGY = (
    Column("source"), *(Column(name, "number") for name in ("idle", "running", "energy of a run", "above idle")),
)  # fmt: skip
Points = Sequence[tuple[float, float]]


def sustained(page: Page) -> Section | None:
    """The section; none where nothing was run so: it takes a minute that nobody may have asked for."""
    runs = [(profile.machine, run) for profile in page.profiles for run in profile.facts.each("sustained")]
    if not runs:
        return None
    why = paragraph(
        "Each artifact ran on and on, its answers compared after every stretch: a profile ends before a board is warm."
    )
    return Section("sustained", "Without a pause", joined(why, *(_run(*each, i) for i, each in enumerate(runs))))


def _run(machine: str, run: Fields, index: int) -> Markup:
    title, anchor = f"{run.text('subject')} on {machine}", f"sustained-{index}"
    windows = _points(run.rows("windows"), 1)
    drawn = [
        _chart(title, f"{anchor}-{name}", points, unit)
        for name, points, unit in (
            ("time", windows, "ms a run"),
            ("clock", _points(run.rows("moments"), 1), "MHz"),
            ("heat", _points(run.rows("moments"), 2), "degrees C"),
        )
        if len(points) > 1
    ]
    held = run.number("throttled_ms")
    notes = [f"{title}: {_said(run)}", f"the CPU quota held it back for {figures.time(held)}" if held else "",
             f"energy: {run.text('no_energy')}" if run.text("no_energy") else ""]  # fmt: skip
    rows = [_energy(each) for each in run.each("energy")]
    energy = table(f"Energy, {title}", ENERGY, rows) if rows else ""
    return joined(charts(drawn), bullets([note for note in notes if note]), energy)


def _points(rows: Sequence[Sequence[float | None]], column: int) -> Points:
    """The known values of one column over the first, which is seconds."""
    return [
        (at, value)
        for row in rows
        if len(row) > column and (at := row[0]) is not None and (value := row[column]) is not None
    ]


def _chart(title: str, anchor: str, points: Points, unit: str) -> tuple[str, Markup]:
    values = [value for _, value in points]
    last = max(at for at, _ in points)
    axes = plot.Axes(Scale(0.0, max(last, 1.0)), linear(values), figures.whole, figures.plain, "seconds", unit)
    said = f"{figures.plain(min(values))} to {figures.plain(max(values))} {unit} over {last:.0f} s."
    drawn = plot.plot(f"{title}, {unit}", said, anchor, axes, plot.curve(axes, points, "curve"))
    return f"{title}, {unit}: {said}", drawn


def _said(run: Fields) -> str:
    ratio, interval = run.number("ratio"), run.interval("interval")
    if run.text("verdict") != "PASS":
        return f"{run.text('verdict')}: {run.text('reason')}"
    if ratio is None or interval is None:
        return "too short to say whether it holds its speed"
    at = run.number("slows_at_s")
    words = {"slower": f"slows down after {at or 0:.0f} s", "faster": "gets faster"}
    said = words.get(run.text("conclusion"), "no slow-down shown")
    return f"{said}; the end takes {ratio:.3g} ({interval[0]:.3g} to {interval[1]:.3g}) times as long as the beginning"


def _energy(each: Fields) -> list[Content]:
    def written(name: str, unit: str) -> str:
        value = each.number(name)
        return figures.NONE if value is None else f"{figures.plain(value)} {unit}"

    return [each.text("source"), written("idle_watts", "W"), written("watts", "W"), written("joules", "J"),
            written("above_idle", "J")]  # fmt: skip
