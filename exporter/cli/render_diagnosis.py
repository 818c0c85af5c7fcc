"""For people: what a diagnosis found, the verdict first, with the error along the graph as a small plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.cli.console import console, escape, mark

Value = Mapping[str, Any]
ROWS, COLUMNS = 6, 60
# What is drawn at the edges: nothing is shown as less, or as more, than rounding's own error times these.
LEAST, MOST = 0.1, 1e12


def diagnosed(value: Value) -> None:
    """The verdict and the outcome, then where, then how the error goes on from there."""
    out = console()
    where = " ".join(filter(None, [value["hop"], value["target"], value["precision"]]))
    out.print(f"{mark(value['verdict'])}  {escape(value['model'])}  {escape(value['weights'])}")
    out.print(f"{value['outcome']}" + (f", {escape(where)}" if where else ""))
    if value["pass"]:
        out.print(f"  pass    {escape(value['pass'])}")
    for birth in value["births"][:1]:
        for line in _birth(birth, value["outcome"]):
            out.print(line)
        for line in plot(birth["growth"], birth["place"], birth["of"]):
            out.print(f"  {line}")
    agreeing = [birth["case"] for birth in value["births"][1:] if birth["node"] == value["births"][0]["node"]]
    if agreeing:
        out.print(f"  the same node in {escape(', '.join(agreeing))}")
    for note in value["notes"]:
        out.print(f"  note: {escape(note)}")
    if value["reproduction"]:
        out.print(f"  fails by itself: exporter verify {escape(value['reproduction'])}")
    out.print(f"  {value['seconds']:.0f} s, {value['runs']} graphs compiled and run")


def _birth(birth: Value, outcome: str) -> Iterator[str]:
    """Where it is, in the user's own words first."""
    yield f"  node    {escape(birth['node'])} ({escape(birth['operator'])}), {birth['place']} of {birth['of']}"
    if len(birth["nodes"]) > 1:
        why = "looking between them changes the answer" if outcome.startswith("vanishes") else "with those around it"
        yield f"  nodes   {escape(', '.join(birth['nodes'][:8]))}{' ...' if len(birth['nodes']) > 8 else ''}: {why}"
    yield f"  module  {escape(birth['module'] or 'the model itself')}"
    yield f"  source  {escape(birth['source'] or 'not told: no line of the model made it')}"
    step = f", step {birth['step']}" if birth["step"] else ""
    again = f", run {birth['round'] + 1} of graph {birth['graph']}" if birth["round"] else ""
    yield f"  case    {escape(birth['case'])}{step}{escape(again)}"
    yield f"  error   {_times(birth['off'])} rounding's own; before it {_times(birth['before'])}"
    if birth["alone"] is False:
        yield "  alone   it is right: only with what is compiled around it is it wrong"
    if birth["only"] is False:
        yield "  after   something else is wrong as well: mend this, and diagnose again"


def _times(off: float) -> str:
    return "without bound," if math.isinf(off) else f"{off:.3g} times"


def plot(points: Sequence[Value], place: int, of: int) -> Iterator[str]:
    """The error along the graph: rows are powers of ten of rounding's own error, columns are nodes in order."""
    seen = [(point["place"], _height(point["off"])) for point in points if point["place"] > 0]
    if not seen:
        return
    top = max(height for _, height in seen)
    low = min(top - 1, *(height for _, height in seen))
    columns: dict[int, float] = {}
    for at, height in seen:
        column = min((at - 1) * COLUMNS // max(of, 1), COLUMNS - 1)
        columns[column] = max(columns.get(column, -math.inf), height)
    rows = {column: round((height - low) / (top - low) * (ROWS - 1)) for column, height in columns.items()}
    for row in reversed(range(ROWS)):
        power = low + (top - low) * row / (ROWS - 1)
        dots = "".join("*" if rows.get(column) == row else " " for column in range(COLUMNS))
        yield f"{10.0**power:8.1e} |{dots}".rstrip()
    born = min((place - 1) * COLUMNS // max(of, 1), COLUMNS - 1)
    yield f"{'':8} +{'-' * born}^{'-' * (COLUMNS - 1 - born)} node {place} of {of}"


def _height(off: float) -> float:
    return math.log10(min(max(off, LEAST), MOST))
