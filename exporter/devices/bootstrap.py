"""The first text that runs on a device, before anything of ours is there: by the standard library alone.

It is sent as it stands and is the same for everybody: paths and names come later, as data. It says what the device is,
takes our own package where the device lacks it, and hands over to :mod:`exporter.devices.there`. :class:`Frames`, the
way in which both sides talk, is defined here because this is the side that has nothing yet.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

MARK = b"exporter-device/1\n"
# What our package imports there, and what pip calls it.
BASE = {"numpy": "numpy>=1.26", "polygraphy": "polygraphy>=0.53,<0.54", "safetensors": "safetensors>=0.4.3"}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
MANAGED = "EXTERNALLY-MANAGED"
CHUNK = 1 << 20
MOST_HEAD = 64 << 20


class Ended(Exception):
    """The other side is gone, or says what no side of ours would say."""


class Frames:
    """Messages over a pair of pipes: each a JSON object, and bytes beside it.

    Args:
        read: at most so many bytes, none at the end.
        write: all of these bytes.
        parse: bytes to JSON.

    Attributes:
        heard: when anything last came, by the monotonic clock; a long message on a slow line is no silence.
    """

    def __init__(
        self, read: Callable[[int], bytes], write: Callable[[bytes], None], parse: Callable[[bytes], Any] = json.loads
    ) -> None:
        self._read, self._write, self._parse = read, write, parse
        self._lock = threading.Lock()
        self._held, self.heard = bytearray(), time.monotonic()

    def send(self, kind: str, data: bytes = b"", **value: Any) -> None:
        """Sends one message whole, whichever thread asks for it."""
        head = json.dumps({**value, "kind": kind}).encode()
        with self._lock:
            self._write(b"%d %d\n" % (len(head), len(data)) + head + data)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next message.

        Raises:
            Ended: there is none any more, or it is no message.
        """
        words = self.line(64).split()
        if len(words) != 2 or not all(word.isdigit() for word in words):
            raise Ended("what came is no message")
        head, data = (int(word) for word in words)
        if head > MOST_HEAD or data > CHUNK:
            raise Ended(f"a message of {head} and {data} bytes is too long")
        value = self._parse(self._exactly(head))
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            raise Ended("a message has no kind")
        return value, self._exactly(data)

    def line(self, most: int) -> bytes:
        """The bytes to the next end of a line."""
        while b"\n" not in self._held:
            if len(self._held) > most:
                raise Ended("what came is no message")
            self._more()
        return self._taken(self._held.index(b"\n") + 1)[:-1]

    def _exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            self._more()
        return self._taken(count)

    def _taken(self, count: int) -> bytes:
        found = bytes(self._held[:count])
        del self._held[:count]
        return found

    def _more(self) -> None:
        part = self._read(CHUNK)
        if not part:
            raise Ended("it ended")
        self._held += part
        self.heard = time.monotonic()


def folder() -> Path:
    """Where a device keeps what was copied to it: in the cache of the user who logged in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exporter" / "devices"


def missing() -> list[str]:
    """What our package imports and this Python has not, as pip would be asked for it."""
    return [need for name, need in BASE.items() if find_spec(name) is None]


def takes_packages() -> bool:
    """Whether this Python's own pip installs anything: a system's may leave that to its package manager (PEP 668)."""
    ours = sys.prefix != sys.base_prefix
    return find_spec("pip") is not None and (ours or not Path(sysconfig.get_path("stdlib"), MANAGED).is_file())


def listed(root: Path) -> str:
    """The digest of all files under a folder, by name and content; what Python keeps beside them does not count."""
    lines = [
        f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def main() -> None:
    """Talks over standard input and output until the other side is gone."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not get between the messages
    os.set_inheritable(out, False)

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(out, view) :]

    frames = Frames(sys.stdin.buffer.read1, write)  # type: ignore[union-attr]
    write(b"\n" + MARK)  # the login may have printed, and not ended its line
    try:
        begun, _ = frames.receive()
        place = _side(frames, str(begun["side"]))
        if place is not None:
            sys.path.insert(0, str(place))
            sys.modules["exporter.devices.bootstrap"] = sys.modules[__name__]  # this one, not a second
            from exporter.devices.there import serve

            serve(frames)
    except (Ended, BrokenPipeError):
        os._exit(1)


def _side(frames: Frames, digest: str) -> Path | None:
    """Where our package lies, of exactly this digest; nowhere where it could not be kept."""
    home = folder()
    said: dict[str, Any] = {
        "python": sys.version.split()[0], "executable": sys.executable, "folder": str(home), "pid": os.getpid(),
        "missing": missing(), "pip": takes_packages(), "venv": find_spec("ensurepip") is not None,
    }  # fmt: skip
    place = home / "side" / digest
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        there = _whole(place)
        if there:
            os.utime(place)  # it is in use: what was not for a month goes
        frames.send("hello", **said, free=shutil.disk_usage(home).free, side=there)
        return place if there else _unpacked(frames, place)
    except OSError as error:
        _failed(frames, error, home)


def _unpacked(frames: Frames, place: Path) -> Path:
    """Our package as it comes, under its name when it is whole."""
    parts = []
    while True:
        told, data = frames.receive()
        parts.append(data)
        if told["kind"] == "end":
            break
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
    try:
        zipfile.ZipFile(io.BytesIO(b"".join(parts))).extractall(staging)
        if listed(staging) != place.name:
            raise Ended("our package came damaged")
        _place(staging, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return place


def _place(staging: Path, place: Path) -> None:
    """Gives what is whole its name. Where another command was first and its own is whole, that one stays: it runs."""
    while True:
        try:
            staging.rename(place)
            return
        except OSError as error:
            if error.errno not in TAKEN:
                raise
        if _whole(place):
            return
        aside = Path(tempfile.mkdtemp(prefix=".old-", dir=place.parent))
        with suppress(FileNotFoundError):  # another command took the damaged one away
            place.rename(aside / place.name)
        shutil.rmtree(aside, ignore_errors=True)


def _whole(place: Path) -> bool:
    with suppress(FileNotFoundError):
        return place.is_dir() and listed(place) == place.name
    return False


def _failed(frames: Frames, error: OSError, home: Path) -> NoReturn:
    free = 0
    with suppress(OSError):
        free = shutil.disk_usage(Path.home()).free
    frames.send("disk", errno=error.errno or 0, what=error.strerror or str(error), folder=str(home), free=free)
    raise Ended("the disk failed")


if __name__ == "__main__":
    main()
