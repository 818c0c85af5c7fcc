"""The cache's folder: entries found, kept, and given up again, those used longest ago first.

Losing it costs time, and so does everything that goes wrong with it: what cannot be written is not kept, what cannot
be read is made again. Processes share it without a lock. An entry gets its name by one rename when it is whole, and
loses it by one before it is removed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from exporter import folders
from exporter.cache import entry as entries
from exporter.cache.entry import MANIFEST, Damaged, Entry
from exporter.errors import Refused

LIMIT_MB = "EXPORTER_CACHE_MB"
DEFAULT_LIMIT = 4 << 30  # bytes
ROOM = 1 << 30  # bytes of the disk that are left alone: a bundle on the same disk needs them more
UNFINISHED_SECONDS = 3600.0  # a folder that is written for so long has no writer any more
KEY = re.compile(r"[0-9a-f]{64}")
LEFTOVER = re.compile(r"\.(new|old)-[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Held:
    """An entry as a list shows it.

    Attributes:
        key: its name.
        model: whose, if it can be read.
        stage: of which stage.
        bytes: what it takes of the disk.
        made: when, in seconds since 1970.
        used: when last, likewise.
        problem: why it will not be used; nothing where it will.
    """

    key: str
    model: str
    stage: str
    bytes: int
    made: float
    used: float
    problem: str = ""


@dataclass(frozen=True)
class Cache:
    """A folder of entries.

    Args:
        folder: it is made when something is kept.
        limit: bytes it may take.
    """

    folder: Path
    limit: int = DEFAULT_LIMIT

    def problem(self) -> str:
        """Why nothing in it is read or written; nothing where it may be used."""
        try:
            found = os.lstat(self.folder)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"it cannot be looked at: {error.strerror}"
        return "it is no folder" if not stat.S_ISDIR(found.st_mode) else entries.problem_of(found)

    def fetch(self, key: str, work: Path) -> Entry | None:
        """The entry of that key, its files copied into ``work``; None where there is none that can be trusted.

        Raises:
            OSError: ``work`` cannot be written.
        """
        folder = self.folder / key
        if not self.limit or self.problem() or not os.path.lexists(folder):
            return None
        try:
            found = entries.restore(folder, work)
        except Damaged:
            self._drop(key)
            return None
        with suppress(OSError):
            os.utime(folder / MANIFEST)
        return found

    def keep(self, entry: Entry, work: Path, names: Sequence[str]) -> None:
        """Keeps what a stage said and wrote, if there is room; what another process kept first stays."""
        with suppress(OSError, Damaged):
            size = sum((work / name).stat().st_size for name in names)
            if not self.limit or self.problem() or size > self.limit:
                return
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if shutil.disk_usage(self.folder).free < size + ROOM:
                return
            staging = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
            try:
                entries.write(staging, work, names, replace(entry, files={}))
                staging.rename(self.folder / entry.key)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            self.prune(most=self.limit)

    def held(self) -> list[Held]:
        """Every entry, the one used last in front."""
        found = [self._looked_at(name) for name in self._names(KEY)]
        return sorted(found, key=lambda held: -held.used)

    def prune(
        self, most: int | None = None, unused_since: float | None = None, leftovers_of: float | None = None
    ) -> list[Held]:
        """Gives up entries, and removes what writers that died left.

        Args:
            most: bytes that may stay; those used last do.
            unused_since: seconds since 1970; what was used before that goes.
            leftovers_of: for how many seconds a folder was not written to whose writer must be dead.

        Returns:
            What went.
        """
        if self.problem():
            return []
        self._sweep(UNFINISHED_SECONDS if leftovers_of is None else leftovers_of)
        gone, size = list[Held](), 0
        for held in self.held():
            size += held.bytes
            old = unused_since is not None and held.used < unused_since
            if held.problem or old or (most is not None and size > most):
                size -= held.bytes
                self._drop(held.key)
                gone.append(held)
        return gone

    def _names(self, kind: re.Pattern[str]) -> Iterator[str]:
        with suppress(OSError):
            yield from (name for name in sorted(os.listdir(self.folder)) if kind.fullmatch(name))

    def _looked_at(self, key: str) -> Held:
        folder, used = self.folder / key, 0.0
        with suppress(OSError):
            used = os.lstat(folder / MANIFEST).st_mtime
        size = _size(folder)
        try:
            entry = entries.read(folder)
        except Damaged as error:
            return Held(key, "", "", size, used, used, str(error))
        return Held(key, entry.model, entry.stage, size, entry.made, used)

    def _sweep(self, seconds: float) -> None:
        """Removes what a writer that was killed left, which nobody has written to for so long."""
        for name in self._names(LEFTOVER):
            with suppress(OSError):
                if time.time() - os.lstat(self.folder / name).st_mtime >= seconds:
                    shutil.rmtree(self.folder / name, ignore_errors=True)

    def _drop(self, key: str) -> None:
        """Takes an entry's name away in one step, then removes it: nobody reads what is half gone."""
        with suppress(OSError):
            doomed = Path(tempfile.mkdtemp(prefix=".old-", dir=self.folder))
            with suppress(OSError):  # another process may have been faster
                (self.folder / key).rename(doomed / key)
            shutil.rmtree(doomed, ignore_errors=True)


def of_this_user() -> Cache:
    """The cache of the user who runs this.

    Raises:
        Refused: ``bad-option`` where the variable that bounds it is no number.
    """
    text = os.environ.get(LIMIT_MB, "")
    if text and not re.fullmatch(r"\d{1,12}", text):
        raise Refused(
            "bad-option",
            f"{LIMIT_MB}={text} is no number of megabytes",
            where="the environment",
            why="it bounds what the cache may take of the disk; 0 keeps nothing",
            next=f"{LIMIT_MB}={DEFAULT_LIMIT >> 20}, which is the default",
        )
    try:
        folder = folders.cache() / "stages"
    except RuntimeError:  # a user without a home
        return Cache(Path(os.devnull), 0)
    return Cache(folder, int(text) << 20 if text else DEFAULT_LIMIT)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; what cannot be looked at counts as nothing."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(inside, name)).st_size
    return total
