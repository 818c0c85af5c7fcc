"""What a device holds of bundles: by digest, so that nothing is copied there twice, and nothing half is ever taken."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from exporter.folders import write_whole
from exporter.manifest import FileInfo, decode

CHUNK = 1 << 20
KEPT_SECONDS = 30 * 86400.0


class Store:
    """The folder on a device that bundles are copied to.

    Attributes:
        folder: where it lies.
        bundle: the bundle that is being worked on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bundle = folder, folder
        self._files: Mapping[str, FileInfo] = {}
        self._manifest = b""

    def lacking(self, name: str, manifest: bytes, wanted: Sequence[str]) -> dict[str, int]:
        """What this device lacks of a bundle, and how much of each file it has already.

        What another bundle here holds under the same digest is copied from there.

        Args:
            name: the bundle's, 64 digits.
            manifest: the bytes of its ``manifest.json``, held to every rule for one.
            wanted: the files that will be used.

        Raises:
            Refused: ``bad-manifest``.
            OSError: the disk is full, or cannot be written.
        """
        self._files, self._manifest = decode(manifest).files, manifest
        self.bundle = self.folder / "bundles" / name
        (self.folder / "partial").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.bundle.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.utime(self.bundle)
        return {
            file: self._begun(self._files[file])
            for file in wanted
            if not _is(self.bundle / file, self._files[file]) and not self._from_another(file)
        }

    def put(self, file: str, data: bytes) -> None:
        """Adds bytes to a file that is being copied."""
        with self._partial(self._files[file]).open("ab") as partial:
            partial.write(data)

    def finish(self, files: Sequence[str]) -> list[str]:
        """Gives the files that were copied their names, and the bundle its manifest.

        Returns:
            The files that came damaged: nothing of them is left, so that they can come again.
        """
        damaged = []
        for file in files:
            partial = self._partial(self._files[file])
            if self._files[file].bytes == 0:
                partial.touch()
            if not _is(partial, self._files[file]):
                partial.unlink(missing_ok=True)
                damaged.append(file)
                continue
            with partial.open("rb") as whole:
                os.fsync(whole.fileno())
            (self.bundle / file).parent.mkdir(parents=True, exist_ok=True)
            partial.replace(self.bundle / file)
        if not damaged:
            write_whole(self.bundle / "manifest.json", self._manifest)
        return damaged

    def expire(self) -> None:
        """Removes what was not used for a month."""
        for kind in ("bundles", "partial", "side"):
            for path in (self.folder / kind).glob("*"):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _partial(self, info: FileInfo) -> Path:
        return self.folder / "partial" / info.sha256

    def _begun(self, info: FileInfo) -> int:
        """How many bytes of a file an earlier copy left; what is longer than the file is no part of it."""
        partial = self._partial(info)
        size = partial.stat().st_size if partial.exists() else 0
        if size > info.bytes:
            partial.unlink()
            return 0
        return size

    def _from_another(self, file: str) -> bool:
        """Whether another bundle on this device had the same file: then it is here too now."""
        info, leaf = self._files[file], file.rpartition("/")[2]
        for other in (self.folder / "bundles").glob(f"*/**/{leaf}"):
            if other.stat().st_size == info.bytes and _is(other, info):
                place = self.bundle / file
                place.parent.mkdir(parents=True, exist_ok=True)
                staging = place.with_name(f".{place.name}.part")
                shutil.copyfile(other, staging)
                staging.replace(place)
                return True
        return False


def _is(path: Path, info: FileInfo) -> bool:
    """Whether a file is there, whole, and the one that is meant."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != info.bytes:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest() == info.sha256
