"""The lock that lets one editor at a time write a bundle, and says who holds it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from exporter.bundle.disk import disk, effects_on
from exporter.bundle.layout import LOCK, LOCK_START
from exporter.bundle.ownership import ensure_folder, lock_bytes
from exporter.bundle.safe_open import must_be_regular, open_folder, unsafe
from exporter.errors import Refused


def acquire(path: Path, command: str) -> tuple[int, bool]:
    """The held lock, and whether the folder had to be made. The kernel frees the lock of an owner that dies."""
    made = False
    for _ in range(100):
        try:
            with effects_on(path):
                made = ensure_folder(path) or made
                if made:
                    with open_folder(path.parent, []) as parent:
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
            must_be_regular(found, path / LOCK)
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
            with suppress(OSError), open_folder(path, []) as folder:
                disk.unlink(LOCK, folder)
        raise


def _open_lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path / LOCK, flags, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise unsafe(path / LOCK, "is no regular file") from None
        raise


def _still_there(path: Path, taken: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path / LOCK, follow_symlinks=False), taken)
    except FileNotFoundError:
        return False


def release(path: Path, lock: int, made: bool) -> None:
    try:
        with suppress(OSError), open_folder(path, []) as folder:
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


def _owner(path: Path) -> Mapping[str, object]:
    """What the lock says of its owner; nothing while that is being written."""
    try:
        found = json.loads(lock_bytes(path) or b"{}")
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
