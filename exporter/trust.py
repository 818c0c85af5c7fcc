"""What this user's machine built: a record of digests outside every bundle.

A digest inside a bundle says that a file is the one that the bundle was made with; whoever made the bundle wrote both.
An artifact that brings code of its own is therefore opened only where this record, which no bundle can write to, knows
it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exporter import folders
from exporter.graph import sha256


def folder() -> Path:
    """Where the record lies, one file per digest: in the user's state folder."""
    return folders.state() / "built"


def machine() -> str:
    """What tells this machine from another that shares the user's home folder."""
    with suppress(OSError):
        return hashlib.sha256(Path("/etc/machine-id").read_bytes()).hexdigest()[:16]
    return platform.node()


def remember(files: Iterable[Path], **facts: Any) -> None:
    """Notes that this machine built these files, with what is worth knowing of them later."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    for file in files:
        note = json.dumps({"machine": machine(), "name": file.name, **facts}, sort_keys=True)
        with tempfile.NamedTemporaryFile("w", dir=place, delete=False, encoding="utf-8") as staging:
            staging.write(note)
        Path(staging.name).replace(place / sha256(file))


def strangers(files: Mapping[str, Path]) -> list[str]:
    """The roles of the files that this user's machine did not build; what cannot be read is strange."""
    return [role for role, file in files.items() if not _known(sha256(file))]


def _known(digest: str) -> bool:
    try:
        note = json.loads((folder() / digest).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and note.get("machine") == machine()
