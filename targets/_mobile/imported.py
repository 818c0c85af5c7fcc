"""What ONNX Runtime's own programs print: ``onnxruntime_perf_test`` and ``onnx_test_runner``.

Formats, as their sources have them (onnxruntime/test/perftest/performance_runner.cc, onnxruntime/test/onnx):

- a result file: ``model,seconds,peak working set,CPU usage,number`` per run, then figures that follow from those;
- what perf_test prints: ``Session creation time cost: 0.01 s``, ``First inference time cost: 3 ms``, ``Peak working set
  size: 123 bytes``, ``Total inference requests: 300``;
- what the test runner prints: ``Total test cases: 3``, ``Succeeded: 3``, ``Failed: 0``, each on a line.
"""

from __future__ import annotations

import csv
import re

from exporter.target import Imported

# More is no record of one run: perf_test is asked for hundreds.
MOST_RUNS = 1_000_000
LEAST_SECONDS, MOST_SECONDS = 1e-8, 1e5  # of a call
NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
PRINTED = {
    "load_ns": (re.compile(rf"^Session creation time cost: {NUMBER} s$", re.MULTILINE), 1e9),
    "first_ns": (re.compile(rf"^First inference time cost: {NUMBER} ms$", re.MULTILINE), 1e6),
    "peak_rss_bytes": (re.compile(rf"^Peak working set size: {NUMBER} bytes$", re.MULTILINE), 1.0),
}
REQUESTS = re.compile(r"^Total inference requests: ([0-9]{1,9})$", re.MULTILINE)
COUNTED = {name: re.compile(rf"^\s*{name}: ([0-9]{{1,9}})$", re.MULTILINE)
           for name in ("Total test cases", "Succeeded", "Not implemented", "Failed")}  # fmt: skip


def imported(text: str) -> Imported | None:
    """What a text of either program says; None for one of neither."""
    text = text.replace("\r\n", "\n")  # adb of some systems
    return _runs(text) or _tests(text) or _printed(text)


def _runs(text: str) -> Imported | None:
    """A result file. Its rows are numbered from 0: one that was written to twice holds two runs, and is refused."""
    lines = [line for line in text.split("\n\n", maxsplit=1)[0].splitlines() if line]
    try:
        rows = list(csv.reader(lines[:MOST_RUNS]))
    except csv.Error:
        return None
    if not rows or any(len(row) != 5 for row in rows) or [row[4] for row in rows] != [str(n) for n in range(len(rows))]:
        return None
    try:
        seconds, peaks = [float(row[1]) for row in rows], {float(row[2]) for row in rows}
    except ValueError:
        return None
    if not all(LEAST_SECONDS <= value <= MOST_SECONDS for value in seconds) or len({row[0] for row in rows}) != 1:
        return None
    peak = max(peaks)
    return Imported(tuple(value * 1e9 for value in seconds), peak_rss_bytes=peak if 0 < peak < 2**50 else None)


def _tests(text: str) -> Imported | None:
    found = {name: pattern.search(text) for name, pattern in COUNTED.items()}
    total, good = found["Total test cases"], found["Succeeded"]
    if total is None or good is None or int(good[1]) > int(total[1]):
        return None
    wrong, left = (int(match[1]) if match else None for match in (found["Failed"], found["Not implemented"]))
    rest = int(total[1]) - int(good[1])
    wrong = rest - (left or 0) if wrong is None else wrong
    # What it says nothing of was not answered either.
    return Imported(right=int(good[1]), wrong=max(wrong, 0), unanswered=max(left or 0, rest - wrong))


def _printed(text: str) -> Imported | None:
    found = {name: (pattern.search(text), unit) for name, (pattern, unit) in PRINTED.items()}
    values = {name: float(match[1]) * unit for name, (match, unit) in found.items() if match}
    if not values or not all(0 <= value <= MOST_SECONDS * 1e9 for value in values.values()):
        return None
    requests = REQUESTS.search(text)
    return Imported(**values, requests=int(requests[1]) if requests else None)  # type: ignore[arg-type]
