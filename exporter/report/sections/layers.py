"""Layers: where the time goes, for each subject whose layers were timed."""

from __future__ import annotations

from exporter.report import figures
from exporter.report.charts import strip
from exporter.report.charts.scale import Scale
from exporter.report.layout import Column, Section, bundle_word, missing, paragraph, table
from exporter.report.markup import Content, Markup, joined
from exporter.report.reading import Fields
from exporter.report.values import Page, Profiled, Timing

SHOWN = 30
NODES = 3  # of one layer that are named
# What a layer reaches, where it was held against what the machine was measured to: a part of the limit that binds it.
REACHED = (Column("GFLOP/s", "number"), Column("GB/s", "number"), Column("of its limit", "number"))


def layers(page: Page) -> Section:
    """The section."""
    found = [(profile, timing) for profile in page.profiles for timing in profile.timings if _total(timing)]
    if not found:
        command = f"exporter profile {bundle_word(page.manifest)} --layers --save"
        return Section("layers", "Layers", missing("No layer was timed.", command))
    why = paragraph(
        "Timed apart from the latencies above, with the runtime's own profiler, which costs time itself: the sum is "
        "not the latency."
    )
    return Section("layers", "Layers", joined(why, *(_subject(profile, timing) for profile, timing in found)))


def _total(timing: Timing) -> float:
    return sum(map(_spent, timing.layers))


def _spent(layer: Fields) -> float:
    """Milliseconds in one run of the model, in which the layer's graph may run often."""
    return (layer.number("ms") or 0.0) * (layer.count("runs") or 1)


def _subject(profile: Profiled, timing: Timing) -> Markup:
    ordered = sorted(timing.layers, key=lambda layer: -_spent(layer))
    total, longest = _total(timing), _spent(ordered[0]) or 1.0
    columns = (
        Column("layer"), Column("kind"), Column("ran"), Column("time", "number"), Column("share", "number"),
        Column("", "chart"), *(REACHED if any("gbs" in layer for layer in ordered) else ()),
    )  # fmt: skip
    rows = [_row(layer, total, Scale(0.0, longest))[: len(columns)] for layer in ordered[:SHOWN]]
    left = len(ordered) - SHOWN
    rest = sum(map(_spent, ordered[SHOWN:]))
    more = f"{left:,} more layers take {figures.time(rest)}, {figures.share(rest / total)}." if left > 0 else ""
    caption = (
        f"{timing.label} on {profile.machine}: {figures.counted(len(ordered), 'layer')}, {figures.time(total)} in all"
    )
    said = [_kinds(timing, total), _modules(timing), _whole(profile, timing), paragraph(more) if more else ""]
    return joined(table(caption, columns, rows, "layers"), *said)


def _row(layer: Fields, total: float, scale: Scale) -> list[Content]:
    spent, nodes, part = _spent(layer), layer.texts("nodes"), layer.number("of_limit")
    named = ", ".join(nodes[:NODES]) + (f" and {len(nodes) - NODES} more" if len(nodes) > NODES else "")
    return [
        named or layer.text("name") or "of the runtime's own",
        layer.text("kind") or figures.NONE,
        layer.text("precision") or figures.NONE,
        figures.time(spent),
        figures.share(spent / total),
        strip.strip(strip.span(scale, 0.0, spent, "bar", 4, 10)),
        figures.plain(layer.number("gflops")),
        figures.plain(layer.number("gbs")),
        figures.plain(None) if part is None else f"{figures.share(part)} {layer.text('bound')}",
    ]


def _kinds(timing: Timing, total: float) -> Markup:
    """The share of each kind of layer."""
    spent: dict[str, float] = {}
    for layer in timing.layers:
        kind = layer.text("kind") or "of no kind"
        spent[kind] = spent.get(kind, 0.0) + _spent(layer)
    largest = sorted(spent.items(), key=lambda item: -item[1])[:6]
    return paragraph("By kind: ", ", ".join(f"{kind} {figures.share(part / total)}" for kind, part in largest), ".")


def _modules(timing: Timing) -> Markup | str:
    """The share of each module of the model."""
    largest = sorted(timing.shares.items(), key=lambda item: -item[1])[:6]
    listed = ", ".join(f"{module} {figures.share(part)}" for module, part in largest)
    return paragraph("By module: ", listed, ".") if listed else ""


def _whole(profile: Profiled, timing: Timing) -> Markup | str:
    """What the model as a whole reaches, and what the machine does at best."""
    whole, peaks = timing.whole, profile.facts.fields("peaks")
    if not whole:
        return ""
    part = whole.number("of_limit")
    reached = f"{figures.plain(whole.number('gflops'))} GFLOP/s and {figures.plain(whole.number('gbs'))} GB/s"
    limit = "" if part is None else f"; {figures.share(part)} of its time would do at the peaks, most of it bound by "
    products = [f"{figures.plain(speed)} GFLOP/s in {kind}" for kind, speed in peaks.counted("gflops").items()]
    at_best = ", ".join([*products, f"{figures.plain(peaks.number('gbs'))} GB/s from memory"])
    bound = whole.text("bound") if part is not None else ""
    return paragraph(f"The whole model reaches {reached}{limit}{bound}. Measured peaks there: {at_best}.")
