"""What this user's machine built: a record of digests outside every bundle.

A digest inside a bundle says that a file is the one that the bundle was made with; whoever made the bundle wrote both.
An artifact that brings code of its own is therefore opened only where this record, which no bundle can write to, knows
it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exporter import folders
from exporter.folders import write_whole
from exporter.graph import sha256


def folder() -> Path:
    """Where the record lies, one file per digest: in the user's state folder."""
    return folders.state() / "built"


def machine() -> str:
    """What tells this machine from another that shares the user's home folder.

    The host's name as well: containers of one image have one machine id.
    """
    identity = b""
    with suppress(OSError):
        identity = Path("/etc/machine-id").read_bytes().strip()
    return hashlib.sha256(identity + b"/" + platform.node().encode()).hexdigest()[:16]


def remember(files: Mapping[str, Path], **facts: Any) -> tuple[str, ...]:
    """Notes that this machine built these files, by role, with what is worth knowing of them later.

    Returns:
        What to tell the user where it cannot be noted: what was built is good, and will be built again when opened.
    """
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for role, file in files.items():
            note = json.dumps({"machine": machine(), "role": role, "name": file.name, **facts}, sort_keys=True)
            write_whole(place / sha256(file), note.encode())
    except OSError as error:
        return (f"that it was built here could not be noted ({error}): it is built again whenever it is opened",)
    return ()


def strangers(files: Mapping[str, Path]) -> list[str]:
    """The roles of the files that this user's machine did not build; what cannot be read is strange."""
    return [role for role, file in files.items() if not _known(sha256(file), role)]


def _known(digest: str, role: str) -> bool:
    try:
        note = json.loads((folder() / digest).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and note.get("machine") == machine() and note.get("role") == role
