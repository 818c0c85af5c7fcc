"""How a manifest is refused: what is wrong, and where in the JSON."""

from __future__ import annotations

from typing import Any, NoReturn

from exporter.manifest.limits import MAX_NAME

WHY = "a bundle may come from anyone, so its manifest must have exactly one meaning"
NEXT = "export the model again, or get the bundle again from where it was made"


class Wrong(Exception):
    """What is wrong, and where in the JSON."""

    def __init__(self, place: str, what: str, why: str = WHY) -> None:
        super().__init__(what)
        self.place = "".join(letter if letter.isprintable() else "?" for letter in place)
        self.what, self.why = what, why


def wrong(place: str, what: str, why: str = WHY) -> NoReturn:
    raise Wrong(place, what, why)


def at(place: str, key: str) -> str:
    return f"{place}.{key[:MAX_NAME]}" if place else key[:MAX_NAME]


def shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
