"""Bytes to JSON, bounded before anything is allocated, and with one meaning only."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from exporter.manifest.limits import MAX_BYTES, MAX_DEPTH, MAX_NAME, MAX_VALUES
from exporter.manifest.refusal import wrong


def parse(data: bytes, most_bytes: int = MAX_BYTES, most_values: int = MAX_VALUES) -> Any:
    if len(data) > most_bytes:
        wrong("", f"it has {len(data)} bytes; at most {most_bytes} are read")
    _measure(data, most_values)
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=lambda name: wrong("", f"{name} is no JSON number"),
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        wrong("", f"it is not UTF-8: {error}")
    except (ValueError, RecursionError) as error:
        wrong("", f"it is not JSON: {error}")


def _measure(data: bytes, most_values: int) -> None:
    """Bounds depth and number of values before a parser allocates anything for them."""
    depth = values = 0
    inside = False
    for match in re.finditer(rb'\\.|["\[\]{},]', data, re.DOTALL):
        token = match.group()
        if token == b'"':
            inside = not inside
        elif inside or token[0] == 0x5C:
            continue
        elif token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        else:
            values += 1
        if depth > MAX_DEPTH:
            wrong("", f"it is nested deeper than {MAX_DEPTH}")
        if values > most_values:
            wrong("", f"it has more than {most_values} values")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            why = "readers differ in whether the first or the last of two equal keys counts"
            wrong(key[:MAX_NAME], f"the key {key[:MAX_NAME]!r} is there twice", why)
        found[key] = value
    return found


def _int(text: str) -> int:
    if len(text) > 20:
        wrong("", f"the number {text[:20]}... has {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    number = float(text) if len(text) <= 64 else math.nan
    if not math.isfinite(number):
        wrong("", f"the number {text[:40]} is out of range")
    return number
