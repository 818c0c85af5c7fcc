"""Files and folders opened without following a link, and what is said where that cannot be."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.bundle.disk import disk
from exporter.errors import Refused

CHUNK = 1 << 20

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that was put in a file's place must not wait for a writer.
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

INSIDE = "a bundle may come from anyone; opening it must not reach a file outside it"
AGAIN = "get the bundle again from where it was made, or export again"


@contextmanager
def open_file(root: Path, name: str) -> Iterator[int]:
    """A descriptor of a regular file under ``root``, reached without following any link."""
    try:
        with open_folder(root, name.split("/")[:-1]) as folder:
            file = _open_regular(folder, name.rpartition("/")[2], root / name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _absent(root / name, error) from None
    except PermissionError as error:
        raise _unreadable(root / name, error) from None
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def open_folder(root: Path, parts: list[str], create: bool = False) -> Iterator[int]:
    """A descriptor of a folder under ``root``. The root may be a link, because the user named it; nothing below."""
    current = os.open(root, FOLDER_FLAGS)
    try:
        for depth, part in enumerate(parts):
            if create:
                disk.mkdir(part, current)
            try:
                below = os.open(part, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=current)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                how = "is a link" if is_link(part, current) else "is no folder"
                raise unsafe(root.joinpath(*parts[: depth + 1]), how) from None
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _open_regular(folder: int, name: str, where: Path) -> int:
    # Looked at first only because opening a device can have effects; what counts is the look at the descriptor.
    must_be_regular(os.stat(name, dir_fd=folder, follow_symlinks=False), where)
    try:
        file = os.open(name, FILE_FLAGS, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise unsafe(where, "is a link") from None
        raise
    try:
        must_be_regular(os.fstat(file), where)
    except BaseException:
        os.close(file)
        raise
    return file


def must_be_regular(found: os.stat_result, where: Path) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise unsafe(where, "is a link")
    if not stat.S_ISREG(found.st_mode):
        raise unsafe(where, "is no regular file")
    if found.st_nlink > 1:
        raise unsafe(where, f"has {found.st_nlink} names (hard links)")


def read_at_most(file: int, most: int) -> bytes:
    parts: list[bytes] = []
    while most > 0 and (part := os.read(file, min(CHUNK, most))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def digest_of(file: int, most: int) -> tuple[str, int]:
    """The digest and size of an open file, read no further than one byte beyond ``most``."""
    digest, size = hashlib.sha256(), 0
    while part := os.read(file, min(CHUNK, most + 1 - size)):
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size


def unsafe(where: Path, how: str) -> Refused:
    return Refused(
        "unsafe-file",
        f"{where.name} {how}",
        where=str(where),
        why=INSIDE,
        next=f"if it is yours, copy it in: cp -rL {where.parent} COPY",
    )


def _absent(where: Path, error: OSError) -> Refused:
    why = "the manifest names it; another run may have replaced the bundle meanwhile"
    return Refused("missing-file", f"{where.name} is absent: {error.strerror}", where=str(where), why=why, next=AGAIN)


def _unreadable(where: Path, error: OSError) -> Refused:
    return Refused(
        "missing-file",
        f"{where.name} cannot be read: {error.strerror}",
        where=str(where),
        why="every file that the manifest names is needed",
        next=f"chmod -R u+rX {where.parent}",
    )
