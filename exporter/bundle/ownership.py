"""Whose folder it is: a bundle is only written where we wrote before, or where nothing is."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.bundle.disk import disk
from exporter.bundle.layout import LOCK, LOCK_START, MANIFEST, WORK
from exporter.bundle.safe_open import open_file, read_at_most
from exporter.errors import Refused
from exporter.manifest.limits import MAX_BYTES
from exporter.manifest.schema import SCHEMA_NAME


def ensure_folder(path: Path) -> bool:
    """Refuses what is not ours, before anything is touched; makes the folder if it is absent, and says so."""
    if os.path.lexists(path):
        if not path.is_dir():
            raise _foreign(path, "is a file")
        if not _ours(path):
            raise _foreign(path, "is not empty and no bundle")
        return False
    if not path.parent.is_dir():
        raise Refused(
            "unwritable-folder",
            f"there is no folder {path.parent}",
            where=str(path),
            why="only the last folder is made, so that a mistyped path is noticed before the work and not after",
            next=f"mkdir -p {path.parent}",
        )
    return disk.mkdir(str(path))


def _ours(path: Path) -> bool:
    """Whether a folder is empty, or one that we have written to before."""
    names = [name for name in os.listdir(path) if not WORK.fullmatch(name)]
    return names == [] or _lock_is_ours(path, alone=names == [LOCK]) or _manifest_is_ours(path)


def _manifest_is_ours(path: Path) -> bool:
    """Whether ``manifest.json`` speaks of itself as ours: other kinds of software use that name too."""
    try:
        with open_file(path, MANIFEST) as file:
            return f'"{SCHEMA_NAME}/'.encode() in read_at_most(file, MAX_BYTES)
    except Refused:
        return False


def _lock_is_ours(path: Path, alone: bool) -> bool:
    """Whether the lock was left by an editor of ours; a lone one may be cut short by its death."""
    data = lock_bytes(path)
    return data is not None and (data.startswith(LOCK_START) or (alone and LOCK_START.startswith(data)))


def lock_bytes(path: Path) -> bytes | None:
    try:
        with open_file(path, LOCK) as file:
            return read_at_most(file, 1 << 16)
    except (OSError, Refused):
        return None


def _foreign(path: Path, how: str) -> Refused:
    return Refused(
        "foreign-folder",
        f"{path} {how}",
        where=str(path),
        why="an export replaces and removes files there, so it only writes where it wrote before, or where nothing is",
        next="choose another place with -o DIR, or remove it yourself",
    )
