"""Which names a bundle's files may have: those that stay inside it, and name one file on every system."""

from __future__ import annotations

import re

from exporter.manifest.limits import MAX_COMPONENT, MAX_COMPONENTS, MAX_PATH
from exporter.manifest.refusal import shown, wrong

COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
OURS = frozenset({"manifest.json", "manifest.json.tmp", "use.md"})


def file_name_problem(name: str) -> str | None:
    """Why ``name`` cannot name a file of a bundle on every system; None when it can.

    Only relative names of plain letters pass, so that what is refused needs no list: ``..``, absolute names, drive
    letters, backslashes, control characters, hidden files and options (``.x``, ``-x``).
    """
    parts = name.split("/")
    if len(name) > MAX_PATH or len(parts) > MAX_COMPONENTS or any(len(part) > MAX_COMPONENT for part in parts):
        return f"longer than {MAX_PATH} letters, {MAX_COMPONENTS} folders or {MAX_COMPONENT} letters in one of them"
    for part in parts:
        if not COMPONENT.fullmatch(part) or part.endswith("."):
            return f"{shown(part)} is not made of letters, digits and ._+- (not first . + - nor last .)"
        if part.split(".")[0].casefold() in RESERVED:
            return f"{part!r} is a reserved name on Windows"
    if name.casefold() in OURS:
        return f"{name!r} is a name of the bundle itself"
    return None


def check_file_name(name: str, place: str) -> None:
    problem = file_name_problem(name)
    if problem is not None:
        wrong(place, f"file name {shown(name)}: {problem}", "a bundle's files stay inside it, on every system")


def no_clash(name: str, spelling: dict[str, str], place: str) -> None:
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if spelling.setdefault(path.casefold(), path) != path:
            why = "on systems that ignore case one file would overwrite the other"
            wrong(place, f"{path!r} differs only in case from {spelling[path.casefold()]!r}", why)
