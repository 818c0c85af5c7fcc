"""What the reports in a bundle say, read without trust: a value of another type than expected is an absent one.

A report was written by this version, by an older one, or by anyone. What it lacks is shown as missing, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from exporter.bundle import Bundle
from exporter.errors import Refused
from exporter.manifest.identity import order_of
from exporter.manifest.limits import MAX_REPORT_BYTES

# Nothing that is measured is larger, nor smaller than one by it: what is drawn can be computed with.
MOST = 1e100


class Fields:
    """A JSON object whose values are taken by the type that they must have."""

    def __init__(self, value: Any = None) -> None:
        self._value: dict[str, Any] = value if isinstance(value, dict) else {}

    def __bool__(self) -> bool:
        return bool(self._value)

    def __contains__(self, name: str) -> bool:
        return self._value.get(name) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self._value == other._value

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._value)))

    def text(self, name: str, absent: str = "") -> str:
        """A text; numbers and truth values are written out."""
        value = self._value.get(name)
        return value if isinstance(value, str) else absent

    def number(self, name: str) -> float | None:
        """A finite number."""
        return number(self._value.get(name))

    def count(self, name: str) -> int | None:
        """A whole number from 0."""
        value = self.number(name)
        return int(value) if value is not None and value >= 0 else None

    def plain(self) -> dict[str, Any]:
        """The object itself, to change a copy of it."""
        return dict(self._value)

    @property
    def saved(self) -> int:
        """Which report it was of those that were saved; 0 for an export's own, or an older version's."""
        return order_of(self._value)

    def fields(self, name: str) -> Fields:
        """An object; an empty one where there is none."""
        return Fields(self._value.get(name))

    def each(self, name: str) -> list[Fields]:
        """The objects of a list."""
        return [Fields(entry) for entry in self._list(name) if isinstance(entry, dict)]

    def texts(self, name: str) -> list[str]:
        """The texts of a list."""
        return [entry for entry in self._list(name) if isinstance(entry, str)]

    def numbers(self, name: str) -> list[float]:
        """The finite numbers of a list."""
        return [found for entry in self._list(name) if (found := number(entry)) is not None]

    def interval(self, name: str) -> tuple[float, float] | None:
        """A pair of finite numbers."""
        found = self.numbers(name)
        return (found[0], found[1]) if len(found) == len(self._list(name)) == 2 else None

    def named(self, name: str) -> Iterator[tuple[str, Fields]]:
        """The objects of an object (of this one where no name is given), by name."""
        held = self.fields(name)._value if name else self._value
        yield from ((key, Fields(value)) for key, value in held.items() if isinstance(value, dict))

    def rows(self, name: str) -> list[list[float | None]]:
        """The lists of a list, each value a finite number or None."""
        return [[number(entry) for entry in row] for row in self._list(name) if isinstance(row, list)]

    def counted(self, name: str) -> dict[str, float]:
        """The numbers of an object (of this one where no name is given), by name."""
        held = self.fields(name)._value if name else self._value
        return {key: found for key, value in held.items() if (found := number(value)) is not None}

    def worded(self, name: str = "") -> dict[str, str]:
        """The plain values of an object (of this one where no name is given), written out, by name."""
        held = self.fields(name)._value if name else self._value
        return {key: written for key, value in held.items() if (written := _written(value)) is not None}

    def _list(self, name: str) -> list[Any]:
        value = self._value.get(name)
        return value if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """A number that can be drawn, or None for anything else: beyond :data:`MOST` it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < MOST:
        return None
    return float(value) if abs(value) > 1 / MOST else 0.0


def _written(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return value if isinstance(value, str) else None


def reports(bundle: Bundle) -> dict[str, Fields]:
    """The JSON reports of a bundle by name, each checked against its digest; what was saved last is last.

    Raises:
        Refused: a file that is not what the manifest says; ``bad-manifest`` for one that is no JSON.
    """
    held = bundle.manifest.reports
    found = {
        name: _parsed(name, bundle.read(held[name], MAX_REPORT_BYTES)) for name in sorted(held) if _is_json(held[name])
    }
    return dict(sorted(found.items(), key=lambda each: each[1].saved))


def _is_json(file: str) -> bool:
    return file.endswith(".json")


def _parsed(name: str, data: bytes) -> Fields:
    try:
        return Fields(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise Refused(
            "bad-manifest",
            f"the report {name!r} is no JSON: {error}",
            where=f"reports.{name}",
            why="a page made of half a report would leave out what it does not say",
            next="exporter verify BUNDLE --save and exporter profile BUNDLE --save write reports anew",
        ) from error
