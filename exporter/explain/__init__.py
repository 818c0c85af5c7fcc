"""The page of every error code: what it means, why the rule exists, what to do. The text is ``pages.md``."""

from __future__ import annotations

import re
from pathlib import Path

from exporter.errors import Refused, nearest

PAGES = Path(__file__).with_name("pages.md")


def pages() -> dict[str, str]:
    """``{code: page}``, in the order of the file."""
    parts = re.split(r"^## ", PAGES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].strip(): "## " + part.strip() for part in parts}


def page(code: str) -> str:
    """The page of a code.

    Raises:
        Refused: ``unknown-code`` with the nearest ones.
    """
    known = pages()
    if code not in known:
        raise Refused(
            "unknown-code",
            f"no error has the code {code!r}{nearest(code, list(known))}",
            why="codes are the words in error[...]",
            next=f"exporter explain {next(iter(known))}",
        )
    return known[code]
