"""The JSON of an older schema to that of the present one; a new schema number gets its function here."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from exporter.errors import Refused
from exporter.manifest.refusal import at, shown, wrong
from exporter.manifest.schema import SCHEMA, SCHEMA_NAME, SCHEMA_NUMBER


# Functions that turn the JSON of schema N into that of schema N + 1, so that every old bundle still opens.
def _with_lower_precisions(value: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 knows graphs of a lower precision, their yardsticks, and options of a target."""
    upgraded: dict[str, Any] = _added(value, "", yardsticks={}) | {"schema": f"{SCHEMA_NAME}/2"}
    targets = value.get("targets")
    if isinstance(targets, dict):
        budget: dict[str, Any] = {"amplification": None, "decibels": None, "losses": {}}
        more: dict[str, Any] = {
            "graphs": {}, "options": {}, "way": "", "kept": {}, "left": {}, "calibration": None, "budget": budget,
        }  # fmt: skip
        upgraded["targets"] = {key: _added(info, f"targets.{key}", **more) for key, info in targets.items()}
    graphs = value.get("graphs")
    if isinstance(graphs, dict):
        upgraded["graphs"] = {key: _added(graph, f"graphs.{key}", work="") for key, graph in graphs.items()}
    return upgraded


def _added(value: Any, place: str, **more: Any) -> Any:
    """An object with keys that its schema did not have; what is no object is refused later, where types are read."""
    if not isinstance(value, dict):
        return value
    for key in more.keys() & value.keys():
        wrong(at(place, key), f"the key {key!r} is unknown in that schema")
    return {**value, **more}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _with_lower_precisions}


def upgraded(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        wrong("", "it is no JSON object")
    schema = value.get("schema")
    match = re.fullmatch(re.escape(SCHEMA_NAME) + r"/([1-9][0-9]{0,5})", schema) if isinstance(schema, str) else None
    if match is None:
        wrong("schema", f"schema is {shown(schema)}, not {SCHEMA}")
    number = int(match.group(1))
    if number > SCHEMA_NUMBER:
        raise Refused(
            "newer-schema",
            f"the bundle has schema {number}; this exporter reads up to {SCHEMA_NUMBER}",
            where="schema",
            why="a newer schema may mean things this version would silently ignore",
            next="upgrade exporter: pip install --upgrade exporter",
        )
    current: dict[str, Any] = value
    for older in range(number, SCHEMA_NUMBER):
        current = UPGRADES[older](current)
    return current
