"""Latency: whether to believe it before the number, the number with its interval, and the whole distribution."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.report import figures
from exporter.report.charts import strip
from exporter.report.charts.scale import Scale, durations
from exporter.report.layout import Column, Section, bullets, bundle_word, missing, paragraph, table, word
from exporter.report.markup import Content, Markup, joined, tag
from exporter.report.reading import Fields
from exporter.report.values import Page, Profiled, Timing

HEIGHT = 34
KEPT = 2  # quantiles at either end that the axis leaves out: one stray call would squeeze everything else
COSTS = (
    Column("subject"),
    *(Column(name, "number") for name in ("p95", "calls", "load", "first run", "peak memory", "size", "threads")),
)


def latency(page: Page) -> Section:
    """The section."""
    if not page.profiles:
        command = f"exporter profile {bundle_word(page.manifest)} --save"
        return Section("latency", "Latency", missing("No latency was measured into this bundle.", command))
    return Section("latency", "Latency", joined(*(_profile(page, profile) for profile in page.profiles)))


def _profile(page: Page, profile: Profiled) -> Markup:
    facts, timings = profile.facts, profile.timings
    floor = facts.number("noise_floor")
    noise = f"two runs of the same thing differ by {(floor - 1):.1%} there" if floor else "no noise floor was measured"
    parts = [
        tag("h3", profile.machine, tag("small", f" {profile.report}")),
        paragraph(word(facts.text("stability")), f" {noise}. {_protocol(facts)}"),
        bullets([*(reason.text("text") for reason in facts.each("reasons")), *_against(timings)]),
        _medians(profile),
        _swept(facts),
        table("What else it costs", COSTS, [_costs(timing) for timing in timings if timing.median is not None]),
        bullets([*(_ratio(ratio, facts) for ratio in facts.each("ratios")), *map(_warning, facts.each("warnings"))]),
        bullets([f"{timing.label}: {note}" for timing in timings for note in timing.notes]),
    ]  # fmt: skip
    if any(timing.median is not None and not timing.quantiles and not timing.blocks for timing in timings):
        command = f"exporter profile {bundle_word(page.manifest)} --save"
        parts.append(missing("The distribution of calls was not kept for every subject:", command))
    return joined(*parts)


def _protocol(facts: Fields) -> str:
    """How timings were taken; those that another program brought were taken in its own way."""
    if facts.count("seed") is None:
        return "Timed by the runtime's own program, all calls in a row."
    return f"Seed {facts.count('seed')}, {facts.count('blocks')} blocks of each subject, interleaved."


def _medians(profile: Profiled) -> Markup:
    scale = durations(_ends(profile.timings))
    columns = (
        Column("subject"), Column("stability"), Column(strip.axis(scale, figures.tick), "chart"),
        Column("median", "number"), Column("95 % interval", "number"), Column("ran"),
    )  # fmt: skip
    caption = "Time of one call: single calls as they are distributed, the median, its interval"
    return table(caption, columns, [_row(timing, scale) for timing in profile.timings], "latency")


def _ends(timings: Sequence[Timing]) -> list[float]:
    """What the axis has to hold of every subject: its interval, and all but the farthest calls."""
    found: list[float] = []
    for timing in timings:
        found += timing.interval or ()
        found += [timing.median] if timing.median is not None else []
        found += timing.quantiles[KEPT:-KEPT:] if timing.quantiles else timing.blocks
    return found


def _against(timings: Sequence[Timing]) -> list[str]:
    """What speaks against a subject's figure."""
    return [f"{timing.label}: {reason}" for timing in timings if timing.median is not None for reason in timing.against]


def _row(timing: Timing, scale: Scale) -> list[Content]:
    if timing.median is None:
        return [timing.label, word(timing.verdict), timing.reason, figures.NONE, figures.NONE, figures.NONE]
    return [
        timing.label,
        word(timing.stability),
        _strip(timing, scale),
        tag("b", figures.time(timing.median)),
        figures.times(*timing.interval) if timing.interval else figures.NONE,
        timing.ran or figures.NONE,
    ]


def _strip(timing: Timing, scale: Scale) -> Markup:
    marks = [strip.grid(scale, HEIGHT)]
    if timing.quantiles:
        marks.append(strip.density(scale, timing.quantiles, "density", HEIGHT - 8))
    else:
        marks += [strip.line(scale, block, "block", HEIGHT - 8, 12) for block in timing.blocks]
    if timing.interval:
        marks.append(strip.span(scale, *timing.interval, "interval", HEIGHT - 7, 5))
    if timing.median is not None:
        marks.append(strip.line(scale, timing.median, "median", HEIGHT, 2))
    return strip.strip(*marks, height=HEIGHT)


def _costs(timing: Timing) -> list[Content]:
    p95 = "too few calls" if timing.p95 is None else figures.time(timing.p95)
    return [
        timing.label, p95, f"{timing.n:,}", figures.time(timing.load), figures.time(timing.first),
        figures.megabytes(timing.memory),
        figures.size(timing.bytes), timing.threads,
    ]  # fmt: skip


def _ratio(ratio: Fields, facts: Fields) -> Content:
    found, interval = ratio.number("median"), ratio.interval("interval")
    if found is None or interval is None:
        return f"{ratio.text('of')} against {ratio.text('to')}: not measured"
    stable = facts.text("stability") == "STABLE"
    doubt = "" if stable else f" ({facts.text('stability')}: its size is uncertain)"
    within = f" ({interval[0]:.3g} to {interval[1]:.3g}) the time of {ratio.text('to')}: "
    times = tag("b", f"{found:.3g}×")
    return joined(f"{ratio.text('of')} takes ", times, within, tag("b", ratio.text("conclusion")), doubt)


def _warning(warning: Fields) -> str:
    return f"warning: {warning.text('what')}; {warning.text('advice')}"


def _swept(facts: Fields) -> Markup | str:
    """The points of a sweep: how many inputs each answers in a second."""
    points = [(point.text("subject"), point.number("per_second")) for point in facts.fields("sweep").each("points")]
    rows: list[list[Content]] = [[name, figures.plain(per)] for name, per in points]
    return table("Inputs a second", (Column("point"), Column("inputs a second", "number")), rows) if rows else ""
