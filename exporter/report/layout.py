"""The pieces that sections are laid out with: tables, notes, what is missing, verdict words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.manifest import Manifest
from exporter.report.markup import Content, Markup, joined, tag

MOST_ROWS = 120
TONES = {
    "PASS": "good", "STABLE": "good", "kept": "good", "SKIPPED": "open", "NOISY": "open", "no change": "open",
    "INVALID": "bad", "FAIL": "bad", "CRASHED": "bad", "TIMED_OUT": "bad", "UNSUPPORTED": "bad", "dropped": "open",
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """One part of the page: its anchor, its heading, and what it says."""

    anchor: str
    heading: str
    body: Markup


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and whether it holds numbers, words, or a chart."""

    heading: Content
    kind: str = ""


def bundle_word(manifest: Manifest) -> str:
    """What commands call the bundle: the folder that an export writes by default."""
    return shlex.quote(f"{manifest.model.name}.bundle")


def word(verdict: str) -> Markup:
    """A verdict or a stability, in its colour; the word itself says it as well."""
    return tag("b", verdict or "?", class_=f"word {TONES.get(verdict, 'bad')}")


def code(name: str) -> Markup:
    """A name, a digest."""
    return tag("code", name)


def command(line: str) -> Markup:
    """A command to type, in one line."""
    return tag("code", line, class_="command")


def paragraph(*content: Content, kind: str | None = None) -> Markup:
    """A paragraph."""
    return tag("p", *content, class_=kind)


def missing(what: str, line: str) -> Markup:
    """What is not there, with the command that makes it."""
    return tag("p", tag("b", "Not measured. ", class_="word open"), what, " ", command(line), class_="missing")


def bullets(lines: Sequence[Content]) -> Markup:
    """A list; nothing of none."""
    return tag("ul", *(tag("li", line) for line in lines)) if lines else Markup("")


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Content]], kind: str = "") -> Markup:
    """A table whose first column names its rows; one that is too wide scrolls by itself, not the page."""
    head = tag("tr", *(tag("th", c.heading, scope="col", class_=c.kind or None) for c in columns))
    body = [_row(columns, row) for row in rows[:MOST_ROWS]]
    left = len(rows) - MOST_ROWS
    more = paragraph(f"and {left:,} more rows: the JSON has all of them", kind="note") if left > 0 else Markup("")
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_=kind or None)
    # One that scrolls has to be reached by keyboard.
    return joined(tag("div", whole, class_="wide", tabindex=0, role="group", aria_label=caption), more)


def _row(columns: Sequence[Column], row: Sequence[Content]) -> Markup:
    first, *rest = [(cell, column.kind or None) for cell, column in zip(row, columns, strict=True)]
    return tag(
        "tr",
        tag("th", first[0], scope="row", class_=first[1]),
        *(tag("td", cell, class_=kind) for cell, kind in rest),
    )


def details(summary: Content, *content: Content, kind: str | None = None) -> Markup:
    """What is shown on demand, and in print; what is of the kind ``numbers`` repeats a chart, and is not printed."""
    return tag("details", tag("summary", summary), *content, class_=kind)


def charts(drawn: Sequence[tuple[str, Markup]]) -> Markup:
    """Charts beside one another, each with what it shows under it."""
    return tag("div", *(tag("figure", chart, tag("figcaption", said)) for said, chart in drawn), class_="charts")


def pairs(rows: Sequence[tuple[Content, Content]]) -> Markup:
    """Names with their values."""
    return tag("dl", *(joined(tag("dt", name), tag("dd", value)) for name, value in rows))
