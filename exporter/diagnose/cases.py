"""The cases that a diagnosis looks at: those that fail, the smallest first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.bundle import Bundle
from exporter.errors import Refused, nearest
from exporter.hops import case_files

Case = Mapping[str, Any]
# A node that is blamed has to be wrong in several cases.
MOST = 3


def cases_of(bundle: Bundle, name: str) -> list[dict[str, Any]]:
    """A bundle's cases, or the only one of a name.

    Raises:
        Refused: ``unknown-case`` where there is none of that name.
    """
    cases = case_files(bundle.file, bundle.manifest)
    names = [case["name"] for case in cases]
    if name and name not in names:
        raise Refused(
            "unknown-case",
            f"{bundle.path} holds no case {name!r}{nearest(name, names)}",
            where=f"bundle {bundle.path}",
            why=f"its cases are {', '.join(names)}",
            next=f"exporter inspect {bundle.path}",
        )
    return [case for case in cases if not name or case["name"] == name]


def smallest(cases: Sequence[Case], wrong: Collection[str]) -> list[Case]:
    """The smallest of the cases that are wrong, single calls before sequences."""
    found = sorted((c for c in cases if c["name"] in wrong), key=lambda c: (c["steps"] > 1, _size(c)))
    single = [case for case in found if case["steps"] == 1]
    return (single or found)[:MOST]


def _size(case: Case) -> int:
    return Path(case["file"]).stat().st_size
