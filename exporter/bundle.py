"""A bundle on disk: opened without trust, written without a moment in which it is broken.

Reading: only files that the manifest declares, reached without following a link, with the declared digest.

Writing: one editor at a time makes new, content-named files, and one atomic replace of ``manifest.json`` makes them
the bundle. ``kill -9`` at any point leaves the old bundle or the new one; what it leaves behind besides is removed by
the next editor. Every effect on the disk goes through :data:`disk`, so that tests can end or fail each of them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import Defect, Refused, StageFailed
from exporter.manifest import (
    COMPONENT,
    MAX_BYTES,
    SCHEMA_NAME,
    FileInfo,
    Manifest,
    decode,
    encode,
    file_name_problem,
    mentioned,
)

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "manifest.json"
LOCK = ".lock"
LOCK_START = b'{"schema": "exporter.lock/1"'
WORK = re.compile(r"\.work-[0-9]+")
CONTENT_NAMED = re.compile(r"-[0-9a-f]{12}(\.[^/]*)?$")
CHUNK = 1 << 20

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that was put in a file's place must not wait for a writer.
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

INSIDE = "a bundle may come from anyone; opening it must not reach a file outside it"
AGAIN = "get the bundle again from where it was made, or export again"


# ------------------------------------------------------------------------------------------------------- reading


class Bundle:
    """An opened bundle: its manifest, and its files one by one, each checked when it is first asked for.

    Attributes:
        path: the folder.
        manifest: what it says of itself.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._checked: dict[str, tuple[int, ...]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Opens the bundle in a folder; reads ``manifest.json`` and nothing else.

        Raises:
            Refused: ``missing-file`` when there is no such folder, ``not-a-bundle``, ``unsafe-file``,
                ``bad-manifest`` or ``newer-schema``.
        """
        folder = Path(path)
        return cls(folder, decode(_manifest_bytes(folder), str(folder / MANIFEST)))

    def file(self, name: str) -> Path:
        """The path of a declared file, after its kind, size and digest were checked.

        Raises:
            Refused: ``undeclared-file``, ``missing-file``, ``unsafe-file`` or ``digest-mismatch``.
        """
        info = self._declared(name)
        with _opened(self.path, name) as file:
            mark = _identity(os.fstat(file))
            if self._checked.get(name) != mark:  # a file swapped since is another file
                self._compare(name, info, *_digest(file, info.bytes))
                self._checked[name] = mark
        return self.path / name

    def read(self, name: str, most: int = 1 << 31) -> bytes:
        """The bytes of a declared file, checked as by :meth:`file`; they are the very bytes that were checked.

        Args:
            name: a name in ``manifest.files``.
            most: a larger file is refused before it is read.
        """
        info = self._declared(name)
        if info.bytes > most:
            raise _unsafe(self.path / name, f"has {info.bytes} bytes; at most {most} are read at once")
        with _opened(self.path, name) as file:
            data = _read(file, info.bytes + 1)
        self._compare(name, info, hashlib.sha256(data).hexdigest(), len(data))
        return data

    def check(self) -> None:
        """Checks every file."""
        for name in self.manifest.files:
            self.file(name)

    def _declared(self, name: str) -> FileInfo:
        info = self.manifest.files.get(name)
        if info is None:
            raise Refused(
                "undeclared-file",
                f"{name!r} is not among the files of the bundle",
                where=str(self.path / MANIFEST),
                why="a file without a digest in the manifest could be anything",
                next=f"exporter inspect {self.path}",
            )
        return info

    def _compare(self, name: str, info: FileInfo, sha256: str, size: int) -> None:
        if (sha256, size) == (info.sha256, info.bytes):
            return
        found = f"more than {info.bytes} bytes" if size > info.bytes else f"sha256 {sha256} of {size} bytes"
        raise Refused(
            "digest-mismatch",
            f"expected sha256 {info.sha256} of {info.bytes} bytes, found {found}",
            where=str(self.path / name),
            why="the file is not the one that was verified: damaged, incomplete, or exchanged",
            next=AGAIN,
        )


def _manifest_bytes(folder: Path) -> bytes:
    try:
        with _opened(folder, MANIFEST) as file:
            return _read(file, MAX_BYTES + 1)
    except Refused as error:
        if error.code != "missing-file":
            raise
    if not os.path.lexists(folder):
        what = f"there is no {folder}"
        raise Refused("missing-file", what, where=str(folder), why="a bundle is a folder", next="exporter --help")
    raise Refused(
        "not-a-bundle",
        f"{folder} " + ("holds no manifest.json" if folder.is_dir() else "is not a folder"),
        where=str(folder),
        why="a bundle is the folder that an export wrote: manifest.json and the files it names",
        next="name the folder itself, by default MODEL.bundle; an unfinished first export leaves no bundle",
    )


@contextmanager
def _opened(root: Path, name: str) -> Iterator[int]:
    """A descriptor of a regular file under ``root``, reached without following any link."""
    try:
        with _folder(root, name.split("/")[:-1]) as folder:
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
def _folder(root: Path, parts: list[str], create: bool = False) -> Iterator[int]:
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
                how = "is a link" if _is_link(part, current) else "is no folder"
                raise _unsafe(root.joinpath(*parts[: depth + 1]), how) from None
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _open_regular(folder: int, name: str, where: Path) -> int:
    # Looked at first only because opening a device can have effects; what counts is the look at the descriptor.
    _must_be_regular(os.stat(name, dir_fd=folder, follow_symlinks=False), where)
    try:
        file = os.open(name, FILE_FLAGS, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unsafe(where, "is a link") from None
        raise
    try:
        _must_be_regular(os.fstat(file), where)
    except BaseException:
        os.close(file)
        raise
    return file


def _must_be_regular(found: os.stat_result, where: Path) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise _unsafe(where, "is a link")
    if not stat.S_ISREG(found.st_mode):
        raise _unsafe(where, "is no regular file")
    if found.st_nlink > 1:
        raise _unsafe(where, f"has {found.st_nlink} names (hard links)")


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(file: int, most: int) -> bytes:
    parts: list[bytes] = []
    while most > 0 and (part := os.read(file, min(CHUNK, most))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _digest(file: int, most: int) -> tuple[str, int]:
    """The digest and size of an open file, read no further than one byte beyond ``most``."""
    digest, size = hashlib.sha256(), 0
    while part := os.read(file, min(CHUNK, most + 1 - size)):
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size


def _unsafe(where: Path, how: str) -> Refused:
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


# ------------------------------------------------------------------------------------------------------- effects


class Disk:
    """The effects an editor has on the disk, one method each; names are relative to an open folder."""

    def step(self, effect: str, name: str) -> None:
        """Called before every effect. Tests put a kill or a failure here."""

    def mkdir(self, name: str, folder: int | None = None) -> bool:
        """Makes a folder unless it is there; whether it was made."""
        self.step("mkdir", name)
        try:
            os.mkdir(name, dir_fd=folder)
        except FileExistsError:
            return False
        return True

    def write(self, file: int, data: bytes, name: str) -> None:
        """Writes all of ``data``, in two halves, so that an end between them is an effect of its own."""
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.step("write", name)
            view = memoryview(part)
            while view:
                view = view[os.write(file, view) :]

    def sync(self, file: int, name: str) -> None:
        """Returns when a file or the names in a folder would survive a power loss."""
        self.step("sync", name)
        os.fsync(file)

    def replace(self, source: Path, name: str, folder: int) -> None:
        """Gives a finished file its name, whatever had it before, without a moment in between."""
        self.step("replace", name)
        os.replace(source, name, dst_dir_fd=folder)

    def unlink(self, name: str, folder: int) -> None:
        """Removes a file's name."""
        self.step("unlink", name)
        os.unlink(name, dir_fd=folder)

    def rmdir(self, name: str, folder: int | None = None) -> None:
        """Removes an empty folder."""
        self.step("rmdir", name)
        os.rmdir(name, dir_fd=folder)

    def rmtree(self, path: Path) -> None:
        """Removes a folder with all in it, following no link."""
        self.step("rmtree", path.name)
        shutil.rmtree(path)


disk = Disk()


# ------------------------------------------------------------------------------------------------------- writing


class Draft:
    """The next state of a bundle. Nothing of it is seen by readers before :meth:`commit`.

    Attributes:
        path: the bundle's folder.
        old: the bundle as it is now, or None.
        work: a folder for stages, on the same file system; gone at the end.
    """

    def __init__(self, path: Path, old: Bundle | None) -> None:
        self.path = path
        self.old = old
        self.work = path / f".work-{os.getpid()}"
        self.needed = 0  # bytes of what is being written, for the message when the disk is full
        self._added: dict[str, FileInfo] = {}
        self._derived: dict[str, str] = {}
        self._committed: Bundle | None = None

    def add(self, source: Path, name: str) -> str:
        """Moves a finished file in.

        Args:
            source: a file, usually under :attr:`work`; it is gone afterwards.
            name: its name in the bundle, such as ``"graphs/model.onnx"``.

        Returns:
            The name it got, which holds the beginning of its digest: ``"graphs/model-0123456789ab.onnx"``.
        """
        with _effects(self):
            if not _movable(source, self.path):
                self.needed = source.stat().st_size
                source = self._copied(source)
            with _opened(source.parent, source.name) as file:
                sha256, size = _digest(file, 1 << 62)
                self.needed = size
                disk.sync(file, source.name)
            return self._place(source, content_name(name, sha256), FileInfo(sha256, size))

    def add_folder(self, source: Path, name: str) -> tuple[str, ...]:
        """Moves a folder of finished files in whose own names are fixed by a format: the folder gets the digest.

        Args:
            source: the folder.
            name: its name in the bundle, such as ``"cases/onnx"``.

        Returns:
            The names its files got: ``"cases/onnx-0123456789ab/test_data_set_0/input_0.pb"``.
        """
        with _effects(self):
            found: list[tuple[Path, FileInfo]] = []
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                with _opened(path.parent, path.name) as file:
                    found.append((path, FileInfo(*_digest(file, 1 << 62))))
                    disk.sync(file, path.name)
            listing = "".join(f"{path.relative_to(source)} {info.sha256}\n" for path, info in found)
            folder = content_name(name, hashlib.sha256(listing.encode()).hexdigest())
            return tuple(self._place(path, f"{folder}/{path.relative_to(source)}", info) for path, info in found)

    def write(self, name: str, data: bytes) -> str:
        """Adds a file of these bytes; returns its name as :meth:`add` does."""
        with _effects(self):
            info = FileInfo(hashlib.sha256(data).hexdigest(), len(data))
            return self._place(self._temporary(data), content_name(name, info.sha256), info)

    def derived(self, name: str, text: str) -> None:
        """Sets a file made from the manifest for people, such as ``USE.md``: it is never read back.

        It is written after the commit, so that a crash in between leaves an old text and never a broken bundle.
        """
        if not COMPONENT.fullmatch(name) or name.casefold().startswith(MANIFEST):
            raise Defect("internal", f"{name!r} cannot be a derived file")
        self._derived[name] = text
        if self._committed is not None:
            self._write_derived()

    def commit(self, manifest: Manifest) -> Bundle:
        """Makes the draft the bundle.

        Args:
            manifest: everything but ``files``, which is computed for every file it names.

        Returns:
            The new bundle.
        """
        with _effects(self):
            files = {name: self._info(name) for name in sorted({name for _, name in mentioned(manifest)})}
            data = encode(replace(manifest, files=files))
            temporary = self._temporary(data)
            with _folder(self.path, []) as root:
                disk.replace(temporary, MANIFEST, root)
                disk.sync(root, str(self.path))
            self._committed = Bundle.open(self.path)
            self._write_derived()
            with suppress(OSError):  # what cannot be removed now is removed by the next editor
                _prune(self.path, self._committed, keep=self.work.name)
            return self._committed

    def _place(self, source: Path, full: str, info: FileInfo) -> str:
        """Gives a synced file its content name; the same content under the same name is kept as it is."""
        if full not in self._added:
            parts = full.split("/")
            with _folder(self.path, parts[:-1], create=True) as folder:
                if not self._is_there(full, info):
                    disk.replace(source, parts[-1], folder)
                disk.sync(folder, full)
            self._sync_above(parts[:-1])
            self._added[full] = info
        if os.path.lexists(source):
            with _folder(source.parent, []) as folder:
                disk.unlink(source.name, folder)
        return full

    def _sync_above(self, parts: list[str]) -> None:
        for depth in range(len(parts)):
            with _folder(self.path, parts[:depth]) as folder:
                disk.sync(folder, "/".join(parts[:depth]) or ".")

    def _is_there(self, name: str, info: FileInfo) -> bool:
        try:
            with _opened(self.path, name) as file:
                return _digest(file, info.bytes) == (info.sha256, info.bytes)
        except Refused:
            return False

    def _info(self, name: str) -> FileInfo:
        if name in self._added:
            return self._added[name]
        if self.old is not None and name in self.old.manifest.files:
            # Its declared digest is carried over, not computed anew: damage must not be declared good.
            info = self.old.manifest.files[name]
            with _opened(self.path, name) as file:
                size = os.fstat(file).st_size
            if size != info.bytes:
                self.old.file(name)
            return info
        raise Defect("internal", f"the manifest names {name!r}, which was never added", where=str(self.path))

    def _temporary(self, data: bytes) -> Path:
        """A synced file of these bytes in the work folder."""
        self.needed = len(data)
        path = self.work / f".new-{hashlib.sha256(data).hexdigest()[:12]}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            disk.write(file, data, path.name)
            disk.sync(file, path.name)
        finally:
            os.close(file)
        return path

    def _copied(self, source: Path) -> Path:
        """A copy in the work folder of a file that cannot be moved from where it is."""
        target = self.work / f".copy-{source.name}"
        disk.step("write", target.name)
        shutil.copyfile(source, target)
        return target

    def _write_derived(self) -> None:
        with _effects(self), _folder(self.path, []) as root:
            for name, text in self._derived.items():
                disk.replace(self._temporary(text.encode()), name, root)
            disk.sync(root, str(self.path))
            self._derived.clear()

    def discard(self) -> None:
        """Removes what this draft added and no commit made part of the bundle.

        Which state the bundle is in is asked of the disk: an error may come right after the commit took effect.
        """
        with suppress(Refused):
            _prune(self.path, _old(self.path), keep=self.work.name)


def content_name(name: str, sha256: str) -> str:
    """``graphs/model.onnx`` -> ``graphs/model-0123456789ab.onnx``: another content is another file."""
    folder, slash, leaf = name.rpartition("/")
    stem, dot, suffix = leaf.partition(".")
    full = f"{folder}{slash}{stem}-{sha256[:12]}{dot}{suffix}"
    problem = file_name_problem(full)
    if problem is not None:
        raise Defect("internal", f"{full!r} cannot name a file of a bundle: {problem}")
    return full


def _movable(source: Path, path: Path) -> bool:
    """Whether a rename brings it in: an ordinary file with one name, on the bundle's file system."""
    found = os.lstat(source)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_dev == os.stat(path).st_dev


@contextmanager
def editing(path: str | os.PathLike[str], command: str) -> Iterator[Draft]:
    """Opens a bundle, or a new folder for one, for one editor.

    Args:
        path: the folder; it may be absent, but not its parent.
        command: what the user called, for the message that another editor gets meanwhile.

    Yields:
        The draft. Without a commit the bundle stays as it was, and a folder that was not there is gone again.

    Raises:
        Refused: ``foreign-folder``, ``unwritable-folder``, ``bundle-locked``, or what :meth:`Bundle.open` raises.
        StageFailed: ``disk-full``.
    """
    folder = Path(path)
    lock, made = _acquire(folder, command)
    try:
        draft = Draft(folder, _old(folder))
        try:
            with _effects(draft):
                _prune(folder, draft.old)
                disk.mkdir(str(draft.work))
            with _room(draft):
                yield draft
        except BaseException:
            with suppress(OSError):  # cleaning up must not hide the first error
                draft.discard()
            raise
        finally:
            with suppress(OSError):
                disk.rmtree(draft.work)
    finally:
        _release(folder, lock, made)


def _prune(path: Path, bundle: Bundle | None, keep: str = "") -> None:
    """Removes what a draft that was not committed, or an older state, left: content-named files, folders of stages.

    Files that a user put there have other names and stay. Only the holder of the lock comes here, so that every
    work folder but its own is a dead editor's.
    """
    declared = bundle.manifest.files if bundle is not None else {}
    with _folder(path, []) as root:
        for name in sorted(os.listdir(root)):
            if WORK.fullmatch(name) and name != keep:
                _remove_work(path / name, root)
        for folder, folders, files, opened in os.fwalk(".", topdown=False, dir_fd=root):
            inside = folder[2:]
            if inside.startswith("."):
                continue
            for name in sorted(files):
                full = f"{inside}/{name}".lstrip("/")
                # A file is ours by its own content name, or by that of the folder of fixed names it lies in.
                if any(CONTENT_NAMED.search(part) for part in full.split("/")) and full not in declared:
                    disk.unlink(name, opened)
            for name in sorted(folders):
                if not name.startswith(".") and not _is_link(name, opened) and _empty(name, opened):
                    disk.rmdir(name, opened)


def _remove_work(path: Path, root: int) -> None:
    if path.is_dir() and not path.is_symlink():
        disk.rmtree(path)
    else:
        disk.unlink(path.name, root)


def _empty(name: str, folder: int) -> bool:
    opened = os.open(name, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    try:
        return not os.listdir(opened)
    finally:
        os.close(opened)


def _old(path: Path) -> Bundle | None:
    """The bundle to edit. A damaged or newer one is not written over."""
    if not os.path.lexists(path / MANIFEST):
        return None
    try:
        return Bundle.open(path)
    except Refused as error:
        if error.code == "bad-manifest":
            error.next = f"rm -r {path}, then export again"
        raise


# ------------------------------------------------------------------------------------------- whose folder it is


def _ensure_folder(path: Path) -> bool:
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
        with _opened(path, MANIFEST) as file:
            return f'"{SCHEMA_NAME}/'.encode() in _read(file, MAX_BYTES)
    except Refused:
        return False


def _lock_is_ours(path: Path, alone: bool) -> bool:
    """Whether the lock was left by an editor of ours; a lone one may be cut short by its death."""
    data = _lock_bytes(path)
    return data is not None and (data.startswith(LOCK_START) or (alone and LOCK_START.startswith(data)))


def _foreign(path: Path, how: str) -> Refused:
    return Refused(
        "foreign-folder",
        f"{path} {how}",
        where=str(path),
        why="an export replaces and removes files there, so it only writes where it wrote before, or where nothing is",
        next="choose another place with -o DIR, or remove it yourself",
    )


# ------------------------------------------------------------------------------------------------------ the lock


def _acquire(path: Path, command: str) -> tuple[int, bool]:
    """The held lock, and whether the folder had to be made. The kernel frees the lock of an owner that dies."""
    made = False
    for _ in range(100):
        try:
            with _effects_on(path, None):
                made = _ensure_folder(path) or made
                if made:
                    with _folder(path.parent, []) as parent:
                        disk.sync(parent, str(path.parent))
                lock = _take(path, command)
        except FileNotFoundError:  # its last editor removed the folder between our two looks
            continue
        except BaseException:
            if made:
                with suppress(OSError):
                    disk.rmdir(str(path))
            raise
        if lock is not None:
            return lock, made
    raise _busy(path)


def _take(path: Path, command: str) -> int | None:
    """Takes the lock; None when its owner removed the file between our opening and our locking it."""
    disk.step("lock", LOCK)
    file = _open_lock(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(file)
        if found.st_nlink != 0:
            _must_be_regular(found, path / LOCK)
        if _still_there(path, found):
            _sign(path, file, _signature(command), fresh=found.st_size == 0)
            return file
    except BlockingIOError:
        os.close(file)
        raise _busy(path) from None
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _sign(path: Path, file: int, signature: bytes, fresh: bool) -> None:
    """Writes who holds the lock, over what a dead owner wrote: it is never a moment without being known as ours."""
    try:
        disk.write(file, signature, LOCK)
        os.ftruncate(file, len(signature))
    except BaseException:
        if fresh:  # a dead owner's may be all that tells whose the other files are
            with suppress(OSError), _folder(path, []) as folder:
                disk.unlink(LOCK, folder)
        raise


def _open_lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path / LOCK, flags, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _unsafe(path / LOCK, "is no regular file") from None
        raise


def _still_there(path: Path, taken: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path / LOCK, follow_symlinks=False), taken)
    except FileNotFoundError:
        return False


def _release(path: Path, lock: int, made: bool) -> None:
    try:
        with suppress(OSError), _folder(path, []) as folder:
            # Removed while it is held: whoever opened it meanwhile notices that it is no longer the one there.
            disk.unlink(LOCK, folder)
    finally:
        os.close(lock)
    if made:
        with suppress(OSError):  # not empty: there is a bundle in it now
            disk.rmdir(str(path))


def _signature(command: str) -> bytes:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": int(time.time())}
    return LOCK_START + b", " + json.dumps(owner).encode()[1:]


def _lock_bytes(path: Path) -> bytes | None:
    try:
        with _opened(path, LOCK) as file:
            return _read(file, 1 << 16)
    except (OSError, Refused):
        return None


def _owner(path: Path) -> Mapping[str, object]:
    """What the lock says of its owner; nothing while that is being written."""
    try:
        found = json.loads(_lock_bytes(path) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _busy(path: Path) -> Refused:
    owner = _owner(path)
    pid, since = owner.get("pid"), owner.get("since")
    age = f", for {max(0, int(time.time()) - since)} s" if isinstance(since, int) else ""
    here = owner.get("host") == socket.gethostname()
    who = f"process {pid}" + ("" if here else f" on {owner.get('host')!a}") if isinstance(pid, int) else "another"
    end = f"kill {pid}" if here and isinstance(pid, int) else "end it there"
    return Refused(
        "bundle-locked",
        f"{path} is being written by {who}{age}: {owner.get('command', 'unknown')!a}",
        where=str(path / LOCK),
        why="two editors would each remove the files of the other",
        next=f"wait until it is done, or {end}; the lock of a process that died is free",
    )


# ------------------------------------------------------------------------------------------- errors of the disk


def _effects(draft: Draft) -> AbstractContextManager[None]:
    return _effects_on(draft.path, draft)


@contextmanager
def _effects_on(path: Path, draft: Draft | None) -> Iterator[None]:
    """Turns the disk's refusals of our own effects into errors that say what to do."""
    try:
        with _room_on(path, draft):
            yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise Refused(
            "unwritable-folder",
            f"{path} cannot be written: {error.strerror}",
            where=str(error.filename or path),
            why="a bundle is made in the folder where it stays, so that one rename can publish it",
            next="choose a folder of yours with -o DIR",
        ) from error


def _room(draft: Draft) -> AbstractContextManager[None]:
    return _room_on(draft.path, draft)


@contextmanager
def _room_on(path: Path, draft: Draft | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise _full(path, draft.needed if draft is not None else 0, error) from error


def _full(path: Path, needed: int, error: OSError) -> StageFailed:
    free = "an unknown number of"
    with suppress(OSError):
        free = str(shutil.disk_usage(path if path.exists() else path.parent).free)
    return StageFailed(
        "disk-full",
        f"{error.strerror or 'no space left'}: {needed or 'some'} bytes needed, {free} bytes free",
        where=str(path),
        why="the bundle is as it was; a bundle that is half written would be worse than none",
        next="make room, or choose another disk with -o DIR, and run the same command again",
    )


# ------------------------------------------------------------------------------------------------------- tensors


def under(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The tensors of a case's file whose names begin with ``input/``, ``reference/`` or the like, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name.

    Raises:
        Refused: ``bad-tensors`` when it is malformed or holds a type numpy has not; ``missing-file``.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise Refused("missing-file", f"there is no file {path}", where=str(path), next=AGAIN)
    try:
        return dict(load_file(path))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise Refused(
            "bad-tensors",
            f"{path.name} cannot be read: {error}",
            where=str(path),
            why="only well-formed safetensors files of numpy's types are read",
            next="write it with safetensors.numpy.save_file",
        ) from None


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as a safetensors file; equal tensors give equal bytes."""
    import numpy as np
    from safetensors.numpy import save_file

    # asarray, not ascontiguousarray: that one gives a scalar an axis.
    save_file({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}, path)
