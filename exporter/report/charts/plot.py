"""Curves and bars on two axes, small enough that several stand beside one another, and readable on a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporter.report.charts.scale import Scale
from exporter.report.markup import Markup, joined, tag

WIDTH, HEIGHT = 360, 208
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 22, 32
MOST_POINTS = 240
Written = Callable[[float], str]


@dataclass(frozen=True)
class Axes:
    """Two axes, how their ticks are written, and what they mean."""

    x: Scale
    y: Scale
    x_written: Written
    y_written: Written
    x_label: str
    y_label: str

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point, in the picture's own units."""
        wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + wide * self.x.at(x), TOP + tall * (1 - self.y.at(y))


def plot(title: str, description: str, anchor: str, axes: Axes, *marks: Markup) -> Markup:
    """A chart with its title and description for those who do not see it.

    Args:
        title: what it is of.
        description: what it shows, in a sentence.
        anchor: an id that no other chart of the page has.
        axes: its axes.
        marks: what is drawn on them.
    """
    names = f"{anchor}-title {anchor}-desc"
    told = joined(tag("title", title, id=f"{anchor}-title"), tag("desc", description, id=f"{anchor}-desc"))
    return tag(
        "svg", told, _grid(axes), *marks, class_="plot", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
        aria_labelledby=names,
    )  # fmt: skip


def _grid(axes: Axes) -> Markup:
    parts = []
    bottom = HEIGHT - BOTTOM
    for tick in axes.y.ticks(5):
        y = round(axes.at(axes.x.low, tick)[1], 1)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:g}", y2=f"{y:g}", class_="grid"))
        parts.append(tag("text", axes.y_written(tick), x=LEFT - 5, y=f"{y + 3.5:g}", text_anchor="end"))
    for tick in axes.x.ticks(5):
        x = round(axes.at(tick, axes.y.low)[0], 1)
        parts.append(tag("line", x1=f"{x:g}", x2=f"{x:g}", y1=bottom, y2=bottom + 3, class_="tick"))
        anchor = "end" if x > WIDTH - 24 else "middle"
        parts.append(tag("text", axes.x_written(tick), x=f"{x:g}", y=bottom + 14, text_anchor=anchor))
    labels = (
        tag("text", axes.x_label, x=WIDTH - RIGHT, y=HEIGHT - 4, text_anchor="end", class_="label"),
        tag("text", axes.y_label, x=2, y=10, class_="label"),
    )
    return joined(*parts, *labels)


def curve(axes: Axes, points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A line through points, in the order they have; of very many the highest of each stretch are drawn."""
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (axes.at(*point) for point in _thinned(points)))
    return tag("polyline", points=drawn, class_=kind)


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """No more points than can be told apart: of each stretch the one with the largest value, and the last of all."""
    if len(points) <= MOST_POINTS:
        return points
    step = -(-len(points) // MOST_POINTS)
    found = [max(points[start : start + step], key=lambda point: point[1]) for start in range(0, len(points), step)]
    return [*found, points[-1]]


def bar(axes: Axes, low: float, high: float, value: float, kind: str) -> Markup:
    """A bar from the x axis up to a value."""
    (left, top), (right, bottom) = axes.at(low, value), axes.at(high, axes.y.low)
    return tag(
        "rect", x=f"{left + 0.5:.1f}", width=f"{max(right - left - 1, 0.5):.1f}", y=f"{top:.1f}",
        height=f"{max(bottom - top, 0.0):.1f}", class_=kind,
    )  # fmt: skip


def rule(axes: Axes, value: float, kind: str) -> Markup:
    """A vertical line at a value."""
    x = f"{axes.at(value, axes.y.low)[0]:.1f}"
    return tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_=kind)


def point(axes: Axes, x: float, y: float, kind: str) -> Markup:
    """A filled point."""
    across, down = axes.at(x, y)
    return tag("circle", cx=f"{across:.1f}", cy=f"{down:.1f}", r=3.5, class_=kind)
