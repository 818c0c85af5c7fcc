"""An entry of the cache: what one stage said and wrote, in a folder of its own, with a digest of all of it.

It is read with no more trust than a bundle: opened without following links, owned by this user and writable by nobody
else, of the size and digest that its manifest declares. The manifest has a digest of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.bundle.safe_open import CHUNK, open_file, read_at_most
from exporter.cache.key import digest_of
from exporter.errors import Refused
from exporter.manifest import FileInfo
from exporter.manifest.names import file_name_problem

MANIFEST = "entry.json"
SCHEMA = "exporter.cache-entry/1"
MAX_BYTES = 64 << 20  # of a manifest: as much as a child may say at once
PRIVATE, NOT_SHARED = 0o600, 0o644  # the folder is this user's alone; a file keeps who may read it, for the bundle


class Damaged(Exception):
    """An entry that is not what it should be: nothing of it is used."""


@dataclass(frozen=True)
class Entry:
    """What a manifest says.

    Attributes:
        key: digest of all that the stage's product depends on.
        model: the model's name, for people.
        stage: the stage's.
        made: when, in seconds since 1970.
        value: what the stage's child returned, its files named from the work folder.
        files: what it wrote, by name from the work folder.
    """

    key: str
    model: str
    stage: str
    made: float
    value: Any
    files: Mapping[str, FileInfo]

    def encoded(self) -> bytes:
        """The manifest's bytes."""
        files = {name: [info.sha256, info.bytes] for name, info in self.files.items()}
        said = {**self.__dict__, "schema": SCHEMA, "files": files}
        return json.dumps({"sha256": digest_of(said), "entry": said}, sort_keys=True).encode()


def problem_of(found: os.stat_result) -> str:
    """Why a file or folder is not this user's alone; nothing where it is."""
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others than its owner can write to it"
    return ""


def write(folder: Path, work: Path, names: Iterable[str], entry: Entry) -> None:
    """Writes an entry into an empty folder.

    Args:
        folder: the folder.
        work: where the stage's files lie.
        names: their names from there.
        entry: everything but ``files``.

    Raises:
        OSError: there is no room, or no right to.
        Damaged: a file has a name that no bundle's file may have.
    """
    files = {}
    for name in names:
        if file_name_problem(name) or name == MANIFEST:
            raise Damaged(f"{name} cannot be kept under that name")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (work / name).open("rb") as source:
            mode = os.fstat(source.fileno()).st_mode & NOT_SHARED
            files[name] = _copied(source.fileno(), target, mode | PRIVATE)
    content = Entry(**{**entry.__dict__, "files": files}).encoded()
    with open(os.open(folder / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as manifest:
        manifest.write(content)


def read(folder: Path) -> Entry:
    """What an entry's manifest says; its files are not looked at.

    Raises:
        Damaged: it is absent, cut short, changed, another user's, or of another version.
    """
    with _opened(folder, MANIFEST) as file:
        content = read_at_most(file, MAX_BYTES)
    try:
        outer = json.loads(content)
        said = dict(outer["entry"])
        if outer["sha256"] != digest_of(said) or said.pop("schema") != SCHEMA:
            raise Damaged("its manifest was changed, or is of another version")
        files = {str(name): FileInfo(str(sha256), int(size)) for name, (sha256, size) in said.pop("files").items()}
        found = Entry(**said, files=files)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"its manifest cannot be read: {error}") from error
    odd = [name for name in files if file_name_problem(name)]
    if odd or found.key != folder.name:
        raise Damaged(f"it names {odd[0]!r}" if odd else "it is under another key than its own")
    return found


def restore(folder: Path, work: Path) -> Entry:
    """Copies an entry's files to where their stage would have written them, and says what it said.

    Args:
        folder: the entry.
        work: the work folder; nothing there is written over.

    Raises:
        Damaged: as of :func:`read`, or a file is not the one that was written; nothing of it is left in ``work``.
        OSError: ``work`` cannot be written.
    """
    found, written = read(folder), list[Path]()
    try:
        for name, info in found.files.items():
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with _opened(folder, name) as file:
                written.append(target)
                if _copied(file, target, os.fstat(file).st_mode & NOT_SHARED, info.bytes) != info:
                    raise Damaged(f"{name} is not what was written")
    except BaseException:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise
    return found


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[int]:
    try:
        with open_file(folder, name) as file:
            problem = problem_of(os.fstat(file))
            if problem:
                raise Damaged(f"{name}: {problem}")
            yield file
    except Refused as error:
        raise Damaged(error.what) from error


def _copied(source: int, target: Path, mode: int, most: int = 1 << 62) -> FileInfo:
    """Copies an open file, no further than one byte beyond ``most``, and says what was copied."""
    digest, size = hashlib.sha256(), 0
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        while part := os.read(source, min(CHUNK, most + 1 - size)):
            digest.update(part)
            size += len(part)
            file.write(part)
    return FileInfo(digest.hexdigest(), size)
