"""JSON to values: every field as its type annotation says it must be, no field unknown and none absent."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from exporter.errors import ExporterError
from exporter.manifest.limits import MAX_ENTRIES, MAX_NAME, MAX_WHOLE
from exporter.manifest.refusal import Wrong, at, shown, wrong
from exporter.manifest.text import checked_name, checked_text

Kind = TypeVar("Kind")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def read(hint: Any, value: Any, place: str) -> Any:
    """The value as its type annotation says it must be; nothing is converted but a whole number to a float."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _any(value, place)
    if isinstance(hint, type) and is_dataclass(hint):
        return _record(hint, value, place)
    if origin in (typing.Union, types.UnionType):
        return _either(inner, value, place)
    if origin is tuple:
        items = _bounded(_expect(list, value, place), place)
        return tuple(read(inner[0], item, f"{place}[{index}]") for index, item in enumerate(items))
    if origin is not None:  # dict and Mapping
        return _mapping(inner[1], value, place)
    return _scalar(hint, value, place)


def _record(kind: Any, value: Any, place: str) -> Any:
    found = _expect(dict, value, place)
    hints = _hints(kind)
    unknown, absent = sorted(found.keys() - hints.keys()), sorted(hints.keys() - found.keys())
    if unknown:
        wrong(at(place, unknown[0]), f"the key {unknown[0][:MAX_NAME]!r} is unknown")
    if absent:
        wrong(at(place, absent[0]), f"the key {absent[0]!r} is absent")
    values = {name: read(hint, found[name], at(place, name)) for name, hint in hints.items()}
    try:
        return kind(**values)
    except ExporterError as error:
        wrong(place, error.what, error.why)


def _either(kinds: Iterable[Any], value: Any, place: str) -> Any:
    for kind in kinds:
        if kind is type(None) and value is None:
            return None
        if (kind in (str, int) and type(value) is kind) or (kind is float and type(value) in (int, float)):
            return _scalar(kind, value, place)
        if is_dataclass(kind) and isinstance(value, dict):
            return read(kind, value, place)
    names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
    raise Wrong(place, f"{shown(value)} is not {names}")


def _mapping(hint: Any, value: Any, place: str) -> dict[str, Any]:
    found = _bounded(_expect(dict, value, place), place)
    for key in found:
        checked_name(key, place)
    return {key: read(hint, item, at(place, key)) for key, item in found.items()}


def _any(value: Any, place: str) -> Any:
    """An option's value: any JSON, its text held to the rules for text."""
    if isinstance(value, dict):
        return _mapping(Any, value, place)
    if isinstance(value, list):
        return [_any(item, f"{place}[{index}]") for index, item in enumerate(_bounded(value, place))]
    return value if value is None or type(value) is bool else _scalar(type(value), value, place)


def _scalar(hint: type, value: Any, place: str) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    _expect(hint, value, place)
    if hint is str:
        return checked_text(value, place)
    if hint is int and abs(value) > MAX_WHOLE:
        wrong(place, f"{value} is out of range")
    return value


def _expect(kind: type[Kind], value: Any, place: str) -> Kind:
    if type(value) is not kind:  # exact: True is an int to isinstance, not to us
        wrong(place, f"{shown(value)} is not {kind.__name__}")
    return value


def _bounded(found: Any, place: str) -> Any:
    if len(found) > MAX_ENTRIES:
        wrong(place, f"it has {len(found)} entries; at most {MAX_ENTRIES} are read")
    return found
