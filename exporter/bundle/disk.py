"""Every effect that writing a bundle has on the disk, and the disk's errors as errors that say what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter.errors import Refused, StageFailed


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


@contextmanager
def effects_on(path: Path, needed: Callable[[], int] | None = None) -> Iterator[None]:
    """Turns the disk's refusals of our own effects into errors that say what to do."""
    try:
        with room_on(path, needed):
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


@contextmanager
def room_on(path: Path, needed: Callable[[], int] | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise _full(path, needed() if needed is not None else 0, error) from error


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
