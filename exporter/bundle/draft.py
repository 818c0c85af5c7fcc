"""Writing: the next state of a bundle, file by file, and the one replace that publishes it."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from exporter.bundle.disk import disk, effects_on, room_on
from exporter.bundle.layout import MANIFEST, content_name
from exporter.bundle.lock import acquire, release
from exporter.bundle.prune import prune
from exporter.bundle.reader import Bundle
from exporter.bundle.safe_open import digest_of, open_file, open_folder
from exporter.errors import Defect, Refused
from exporter.external import GRAPH
from exporter.graph import Graph, data_of
from exporter.manifest import FileInfo, Manifest, encode, mentioned
from exporter.manifest.names import COMPONENT


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
            with open_file(source.parent, source.name) as file:
                sha256, size = digest_of(file, 1 << 62)
                self.needed = size
                disk.sync(file, source.name)
            return self._place(source, content_name(name, sha256), FileInfo(sha256, size))

    def add_folder(self, source: Path, name: str) -> tuple[str, ...]:
        """Moves a folder of finished files in whose own names are fixed by a format: the folder gets the digest.

        Args:
            source: the folder.
            name: its name in the bundle, such as ``"device/onnx"``.

        Returns:
            The names its files got: ``"device/onnx-0123456789ab/test_data_set_0/input_0.pb"``.
        """
        with _effects(self):
            return self._add_together(sorted(p for p in source.rglob("*") if p.is_file()), source, name)

    def add_graph(self, source: Path, name: str) -> str:
        """Moves a graph in. One with external data names it in its bytes: both keep their names, in a folder that gets
        the digest, such as ``"graphs/traced-0123456789ab/gtcrn.onnx"``.

        Args:
            source: the ``.onnx`` file, usually under :attr:`work`; it and its data are gone afterwards.
            name: its name in the bundle, such as ``"graphs/traced.onnx"``.

        Returns:
            The name it got.
        """
        files = Graph(source).files
        if len(files) == 1:
            return self.add(source, name)
        with _effects(self):
            return self._add_together(files, source.parent, name.removesuffix(GRAPH))[0]

    def _add_together(self, paths: Sequence[Path], root: Path, name: str) -> tuple[str, ...]:
        """Moves files in under their names from ``root``; the folder gets the digest of all of them."""
        found: list[tuple[Path, FileInfo]] = []
        for path in paths:
            with open_file(path.parent, path.name) as file:
                found.append((path, FileInfo(*digest_of(file, 1 << 62))))
                self.needed = found[-1][1].bytes
                disk.sync(file, path.name)
        listing = "".join(f"{path.relative_to(root)} {info.sha256}\n" for path, info in found)
        folder = content_name(name, hashlib.sha256(listing.encode()).hexdigest())
        return tuple(self._place(path, f"{folder}/{path.relative_to(root)}", info) for path, info in found)

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
            named = {name for _, name in mentioned(manifest)}
            named |= {data for data in map(data_of, named) if self._holds(data)}
            files = {name: self._info(name) for name in sorted(named)}
            data = encode(replace(manifest, files=files))
            temporary = self._temporary(data)
            with open_folder(self.path, []) as root:
                disk.replace(temporary, MANIFEST, root)
                disk.sync(root, str(self.path))
            self._committed = Bundle.open(self.path)
            self._write_derived()
            with suppress(OSError):  # what cannot be removed now is removed by the next editor
                prune(self.path, self._committed, keep=self.work.name)
            return self._committed

    def _place(self, source: Path, full: str, info: FileInfo) -> str:
        """Gives a synced file its content name; the same content under the same name is kept as it is."""
        if full not in self._added:
            parts = full.split("/")
            with open_folder(self.path, parts[:-1], create=True) as folder:
                if not self._is_there(full, info):
                    disk.replace(source, parts[-1], folder)
                disk.sync(folder, full)
            self._sync_above(parts[:-1])
            self._added[full] = info
        if os.path.lexists(source):
            with open_folder(source.parent, []) as folder:
                disk.unlink(source.name, folder)
        return full

    def _sync_above(self, parts: list[str]) -> None:
        for depth in range(len(parts)):
            with open_folder(self.path, parts[:depth]) as folder:
                disk.sync(folder, "/".join(parts[:depth]) or ".")

    def _is_there(self, name: str, info: FileInfo) -> bool:
        try:
            with open_file(self.path, name) as file:
                return digest_of(file, info.bytes) == (info.sha256, info.bytes)
        except Refused:
            return False

    def _holds(self, name: str) -> bool:
        return name in self._added or (self.old is not None and name in self.old.manifest.files)

    def _info(self, name: str) -> FileInfo:
        if name in self._added:
            return self._added[name]
        if self.old is not None and name in self.old.manifest.files:
            # Its declared digest is carried over, not computed anew: damage must not be declared good.
            info = self.old.manifest.files[name]
            with open_file(self.path, name) as file:
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
        with _effects(self), open_folder(self.path, []) as root:
            for name, text in self._derived.items():
                disk.replace(self._temporary(text.encode()), name, root)
            disk.sync(root, str(self.path))
            self._derived.clear()

    def discard(self) -> None:
        """Removes what this draft added and no commit made part of the bundle.

        Which state the bundle is in is asked of the disk: an error may come right after the commit took effect.
        """
        with suppress(Refused):
            prune(self.path, _old(self.path), keep=self.work.name)


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
    lock, made = acquire(folder, command)
    try:
        draft = Draft(folder, _old(folder))
        try:
            with _effects(draft):
                prune(folder, draft.old)
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
        release(folder, lock, made)


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


def _effects(draft: Draft) -> AbstractContextManager[None]:
    return effects_on(draft.path, lambda: draft.needed)


def _room(draft: Draft) -> AbstractContextManager[None]:
    return room_on(draft.path, lambda: draft.needed)
