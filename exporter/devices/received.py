"""What a device says, as values: bounded before it is parsed, cleaned before it is shown, of the form it must have.

A device is chosen by its user and believed in what it measured. It is not believed in anything else: its text drives no
terminal, its numbers are numbers, and no path of it is ever opened here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from exporter.errors import KINDS, ExporterError, StageFailed, from_json
from exporter.explain import pages
from exporter.manifest.parse import parse
from exporter.manifest.refusal import Wrong
from exporter.manifest.text import printable, scrubbed
from exporter.verdict import Verdict

MOST_BYTES, MOST_VALUES = 64 << 20, 8_000_000  # a report with every timing of a long profile
MOST_PART = 2000  # letters of one part of an error
LAST_LINES = 6

WORD = tuple(verdict.value for verdict in Verdict)
STABILITY = ("STABLE", "NOISY", "INVALID")
NUMBER = (int, float)
MAYBE = (int, float, type(None))
TEXT = (str, type(None))


class Row:
    """A list of so many parts, each of its own shape; or null."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


PRECISION = {"asked": str, "stored": str, "ran": TEXT}
RESULT = {"hop": str, "target": TEXT, "form": TEXT, "case": str, "output": str, "verdict": WORD, "reason": TEXT,
          "relative_l2": MAYBE, "amplification": MAYBE, "elements": int}  # fmt: skip
HOP = {"hop": str, "target": TEXT, "verdict": WORD, "reason": TEXT, "facts": dict}
VERIFY = {"schema": ("exporter.verify/1",), "model": str, "weights": str, "verdict": WORD, "hops": [HOP],
          "results": [RESULT]}  # fmt: skip
SUBJECT = {"name": str, "verdict": WORD, "reason": TEXT, "precision": PRECISION, "median_ms": MAYBE, "p95_ms": MAYBE,
           "n": int, "load_ms": MAYBE, "first_run_ms": MAYBE, "peak_rss_mb": MAYBE, "threads": int, "bytes": MAYBE,
           "baseline": bool, "options": dict, "copies_ms": dict, "host_ms": MAYBE, "advice": [str]}  # fmt: skip
LAYER = {"name": str, "kind": str, "nodes": [str], "ms": NUMBER, "precision": str, "runs?": int,
         "gflops?": MAYBE, "gbs?": MAYBE, "of_limit?": MAYBE, "bound?": TEXT}  # fmt: skip
SHARES = {"operator": {"*": NUMBER}, "module": {"*": NUMBER}}
WHOLE = {"flops": int, "bytes": int, "gflops": NUMBER, "gbs": NUMBER, "of_limit": MAYBE, "bound": TEXT,
         "layers_without_limit": int}  # fmt: skip
SUBJECT |= {"layer_times?": [LAYER], "shares?": SHARES, "roofline?": WHOLE}
PEAKS = {"gflops": {"*": NUMBER}, "copies": [{"bytes": int, "gbs": NUMBER}], "threads": int}
ENERGY = {"source": str, "idle_watts": MAYBE, "watts": NUMBER, "joules": NUMBER, "above_idle": MAYBE}
SUSTAINED = {"subject": str, "verdict": WORD, "reason": TEXT, "seconds": NUMBER, "runs": int,
             "windows": [Row(NUMBER, NUMBER)], "moments": [Row(NUMBER, MAYBE, MAYBE)], "ratio": MAYBE,
             "interval": Row(NUMBER, NUMBER), "conclusion": str, "slows_at_s": MAYBE, "throttled_ms": NUMBER,
             "energy": [ENERGY], "no_energy": TEXT}  # fmt: skip
SWEEP = {"by": dict, "points": [{"subject": str, "per_second": MAYBE}]}
RATIO = {"of": str, "to": str, "median": NUMBER, "interval": [NUMBER], "conclusion": str}
PROFILE = {"schema": ("exporter.profile/1",), "stability": STABILITY, "noise_floor": MAYBE, "subjects": [SUBJECT],
           "ratios": [RATIO], "warnings": [{"what": str, "advice": str}], "environment": dict,
           "peaks?": PEAKS, "sustained?": [SUSTAINED], "sweep?": SWEEP}  # fmt: skip
STAGE = {"stage": str, "seconds": NUMBER, "cached": bool}
EXPORT = {"schema": ("exporter.export/1",), "bundle": str, "verdict": WORD, "verify": VERIFY, "stages": [STAGE],
          "profile": (type(None),), "published": TEXT, "auto": (type(None),)}  # fmt: skip
RUN = {"calls": int, "outputs": dict}
DOCTOR = {"schema": ("exporter.doctor/1",), "ok": bool, "problems": [str], "elsewhere": [str], "machine": dict,
          "versions": dict}  # fmt: skip


def json_of(data: bytes) -> Any:
    """JSON of a device, under the rules for a stranger's manifest but for its size; its text cleaned.

    Raises:
        StageFailed: ``bad-answer``.
    """
    try:
        return _cleaned(parse(data, MOST_BYTES, MOST_VALUES))
    except Wrong as error:
        raise bad_answer(f"{error.place}: {error}" if error.place else str(error)) from None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, dict):
        return {scrubbed(key): _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def checked(value: Any, shape: Any, place: str = "answer") -> Any:
    """The value, if it has the shape: a type, types or words to choose from, a list of one shape, named parts.

    A part whose name ends in ``?`` may be missing; ``*`` stands for every part.

    Raises:
        StageFailed: ``bad-answer``.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise bad_answer(f"{place} is no object")
        for name, part in _parts(value, shape):
            if name not in value:
                raise bad_answer(f"{place} has no {name!r}")
            checked(value[name], part, f"{place}.{name}")
    elif isinstance(shape, Row):
        if value is not None and (not isinstance(value, list) or len(value) != len(shape.parts)):
            raise bad_answer(f"{place} is no list of {len(shape.parts)}")
        for index, (item, part) in enumerate(zip(value or (), shape.parts, strict=False)):
            checked(item, part, f"{place}[{index}]")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise bad_answer(f"{place} is no list")
        for index, item in enumerate(value):
            checked(item, shape[0], f"{place}[{index}]")
    elif not _fits(value, shape):
        raise bad_answer(f"{place} is {str(value)[:60]!a}")
    return value


def _parts(value: Mapping[str, Any], shape: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts that a value must have, by name."""
    for name, part in shape.items():
        if name == "*":
            yield from ((own, part) for own in value)
        elif not name.endswith("?"):
            yield name, part
        elif name[:-1] in value:
            yield name[:-1], part


def _fits(value: Any, shape: Any) -> bool:
    choices = shape if isinstance(shape, tuple) else (shape,)
    return any(type(value) is one if isinstance(one, type) else value == one for one in choices)


def error_of(value: Mapping[str, Any], label: str) -> ExporterError:
    """An error that came up on a device, as it was there, told as that device's."""
    parts = {name: said(str(value.get(name, ""))) for name in ("what", "where", "why", "next")}
    code, kind = str(value.get("code", "")), str(value.get("error", ""))
    if kind not in KINDS or code not in pages():
        raise bad_answer(f"its error is {code[:40]!a} of kind {kind[:40]!a}")
    parts["where"] = f"{parts['where']}, on {label}" if parts["where"] else f"on {label}"
    return from_json({**parts, "code": code, "kind": kind})


def said(text: str) -> str:
    """Text of a device in one line, fit for a terminal."""
    return printable(" ".join(text.split()))[:MOST_PART]


def last_lines(data: bytes) -> str:
    """The last lines that a device, or ssh, left on standard error."""
    lines = [said(line) for line in data.decode("utf-8", "replace").splitlines()]
    return " | ".join([line for line in lines if line.strip("@ ")][-LAST_LINES:])


@contextmanager
def spoken_by(address: object) -> Iterator[None]:
    """Names the device, where what is done meanwhile meets an answer that is none."""
    try:
        yield
    except StageFailed as error:
        if error.code == "bad-answer":
            error.where, error.next = f"--on {address}", error.next.replace("DEVICE", shlex.quote(str(address)))
        raise


def bad_answer(what: str) -> StageFailed:
    return StageFailed(
        "bad-answer", f"a device gave what is no answer: {said(what)[:300]}", where="--on",
        why="what a device says is read as a stranger's bundle is: bounded, and of one form",
        next="exporter doctor --on DEVICE; if it is a device of yours, look whether its python is what it should be",
    )  # fmt: skip
