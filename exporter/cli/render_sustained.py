"""What a subject did without a pause, and over a sweep, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from exporter.cli.console import escape

Event = Mapping[str, Any]
# Eighths of a line, as one character each.
BARS, COLUMNS = " ▁▂▃▄▅▆▇█", 60


def sustained_lines(runs: Sequence[Event]) -> Iterator[str]:
    """Each run: whether it held its speed, its curve, heat and clocks, and energy."""
    for run in runs:
        yield from _run_lines(run)


def _run_lines(run: Event) -> Iterator[str]:
    name = escape(run["subject"])
    if run["verdict"] != "PASS":
        yield f"  sustained, {name}: {run['verdict']}: {escape(run['reason'] or '')}"
        return
    yield f"  sustained, {name}: {run['runs']:,} runs in {run['seconds']:.0f} s, {_held(run)}"
    yield from _curve("ms a run", run["windows"])
    for index, what in ((1, "MHz"), (2, "degrees C")):
        told = [[at, value] for at, *values in run["moments"] if (value := values[index - 1]) is not None]
        yield from _curve(what, told)
    if run["throttled_ms"]:
        yield f"    the CPU quota held it back for {run['throttled_ms']:.4g} ms"
    for energy in run["energy"]:
        above = "" if energy["above_idle"] is None else f", {energy['above_idle']:.4g} J above idle"
        yield f"    {escape(energy['source'])}: {energy['watts']:.4g} W, {energy['joules']:.4g} J a run{above}"
    if run["no_energy"]:
        yield f"    energy: {escape(run['no_energy'])}"


def _held(run: Event) -> str:
    if run["ratio"] is None or run["interval"] is None:
        return "too short to say whether it holds its speed"
    low, high = run["interval"]
    figure = f"the end takes {run['ratio']:.2f}x ({low:.2f} to {high:.2f}) the time of the beginning"
    if run["conclusion"] == "slower":
        return f"[bold yellow]slows down[/] after {run['slows_at_s'] or 0:.0f} s: {figure}"
    return f"{'gets faster' if run['conclusion'] == 'faster' else 'no slow-down shown'}: {figure}"


def _curve(what: str, points: Sequence[Sequence[float]]) -> Iterator[str]:
    """A line of bars over time, from the smallest to the largest value; nothing for a value that never changes."""
    values = [value for _, value in points]
    if len(values) < 2:
        return
    columns = min(COLUMNS, len(values))
    edges = [round(index * len(values) / columns) for index in range(columns + 1)]
    shown = [median(values[start:end]) for start, end in pairwise(edges)]
    low, high = min(shown), max(shown)
    if low == high:
        yield f"    {what:<10} {low:.4g} throughout"
        return
    bars = "".join(BARS[1 + round((value - low) / (high - low) * (len(BARS) - 2))] for value in shown)
    yield f"    {what:<10} {bars}  {low:.4g} to {high:.4g}"


def sweep_rows(value: Event) -> list[tuple[str, ...]]:
    """A row per point: what it takes, and how many inputs that is in a second."""
    subjects = {subject["name"]: subject for subject in value["subjects"]}
    rows: list[tuple[str, ...]] = []
    for point in value["sweep"]["points"]:
        subject = subjects.get(point["subject"], {})
        if subject.get("median_ms") is None or point["per_second"] is None:
            rows.append((point["subject"], f"{subject.get('verdict', '?')}: {subject.get('reason', '')}", "", ""))
            continue
        low, high = subject["interval_ms"]
        per = f"{point['per_second']:.4g}"
        rows.append((point["subject"], f"{subject['median_ms']:.4g} ms", f"{low:.4g} to {high:.4g}", per))
    return rows
