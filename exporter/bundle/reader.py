"""Reading: a bundle opened without trust, its files checked one by one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from exporter.bundle.layout import MANIFEST
from exporter.bundle.safe_open import AGAIN, digest_of, open_file, read_at_most, unsafe
from exporter.errors import Refused
from exporter.external import GRAPH, refuse_bad
from exporter.graph import data_of
from exporter.manifest import FileInfo, Manifest, decode
from exporter.manifest.limits import MAX_BYTES


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
        """The path of a declared file, after its kind, size and digest were checked; of a graph, its data's as well.

        Raises:
            Refused: ``undeclared-file``, ``missing-file``, ``unsafe-file``, ``digest-mismatch``, or
                ``bad-external-data`` for a graph that refers to anything but its own data.
        """
        info = self._declared(name)
        with open_file(self.path, name) as file:
            mark = _identity(os.fstat(file))
            if self._checked.get(name) != mark:  # a file swapped since is another file
                self._compare(name, info, *digest_of(file, info.bytes))
                self._checked[name] = mark
        path = self.path / name
        if name.endswith(GRAPH):
            held = data_of(name) in self.manifest.files
            if held:
                self.file(data_of(name))
            refuse_bad(path, {data_of(path.name)} if held else ())
        return path

    def read(self, name: str, most: int = 1 << 31) -> bytes:
        """The bytes of a declared file, checked as by :meth:`file`; they are the very bytes that were checked.

        Args:
            name: a name in ``manifest.files``.
            most: a larger file is refused before it is read.
        """
        info = self._declared(name)
        if info.bytes > most:
            raise unsafe(self.path / name, f"has {info.bytes} bytes; at most {most} are read at once")
        with open_file(self.path, name) as file:
            data = read_at_most(file, info.bytes + 1)
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
        with open_file(folder, MANIFEST) as file:
            return read_at_most(file, MAX_BYTES + 1)
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


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
