"""One row of a table on an axis that all rows share. Places are in percent, so it fits any width without distortion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from exporter.report.charts.scale import Scale
from exporter.report.markup import Markup, joined, tag

HEIGHT, MARGIN = 18, 3.0  # pixels; percent of the width kept free at both ends, for marks that lie there


def place(scale: Scale, value: float) -> float:
    """Where a value lies, in percent of the strip's width."""
    return MARGIN + (100 - 2 * MARGIN) * scale.at(value)


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def dot(scale: Scale, value: float, kind: str, height: int = HEIGHT) -> Markup:
    """A filled point."""
    return tag("circle", cx=_percent(place(scale, value)), cy=height // 2, r="4.5", class_=kind)


def line(scale: Scale, value: float, kind: str, height: int = HEIGHT, top: int = 1) -> Markup:
    """A line across the strip."""
    at = _percent(place(scale, value))
    return tag("line", x1=at, x2=at, y1=top, y2=height - top, class_=kind)


def span(scale: Scale, low: float, high: float, kind: str, y: float, height: float) -> Markup:
    """A bar from one value to another."""
    left, right = sorted((place(scale, low), place(scale, high)))
    width = max(right - left, 0.25)
    return tag("rect", x=_percent(left), width=_percent(width), y=f"{y:g}", height=f"{height:g}", class_=kind)


def strip(*marks: Markup, height: int = HEIGHT) -> Markup:
    """Marks on one row. The same numbers stand in the row's other cells, so it is nothing to a screen reader."""
    return tag("svg", *marks, class_="strip", width="100%", height=height, aria_hidden="true")


def axis(scale: Scale, written: Callable[[float], str], most: int = 5) -> Markup:
    """The axis over a column of strips."""
    ticks = scale.ticks(most)
    # Every other one is left out where the strip is narrow.
    labels = [_label(scale, tick, written(tick), "minor" if index % 2 else None) for index, tick in enumerate(ticks)]
    return tag("svg", *labels, class_="strip axis", width="100%", height=16, aria_hidden="true")


def _label(scale: Scale, value: float, written: str, kind: str | None) -> Markup:
    at = place(scale, value)
    anchor = "start" if at < 8 else "end" if at > 92 else "middle"
    return tag("text", written, x=_percent(at), y=12, text_anchor=anchor, class_=kind)


def grid(scale: Scale, height: int = HEIGHT, most: int = 5) -> Markup:
    """Faint lines at the axis's ticks."""
    return joined(*(line(scale, tick, "grid", height, 0) for tick in scale.ticks(most)))


def density(scale: Scale, quantiles: Sequence[float], kind: str, height: int, bins: int = 72) -> Markup:
    """The distribution behind quantiles: how much of it lies in each of many equal pieces of the axis."""
    counts = [0.0] * bins
    each = 1.0 / max(len(quantiles) - 1, 1)
    for low, high in pairwise(quantiles):
        first, last = scale.at(low) * bins, scale.at(high) * bins
        _spread(counts, first, last, each)
    highest = max(counts)
    if not highest:
        return Markup("")
    step = (100 - 2 * MARGIN) / bins
    bars = []
    for index, count in enumerate(counts):
        tall = round((height - 2) * count / highest, 1)
        if tall >= 0.3:
            left = MARGIN + index * step
            bars.append(tag("rect", x=_percent(left), width=_percent(step), y=f"{height - tall:g}", height=f"{tall:g}"))
    return tag("g", *bars, class_=kind)


def _spread(counts: list[float], first: float, last: float, amount: float) -> None:
    """Adds an amount to the pieces between two places, evenly."""
    bins = len(counts)
    start, end = min(int(first), bins - 1), min(int(last), bins - 1)
    if start == end:
        counts[start] += amount
        return
    width = last - first
    for index in range(start, end + 1):
        overlap = min(last, index + 1.0) - max(first, float(index))
        counts[index] += amount * max(overlap, 0.0) / width
