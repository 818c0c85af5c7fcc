"""One user of a device at a time: a lock that all accounts of the device share, and that says who holds it.

The kernel holds it, not the file: whatever kills its owner frees it, and what the file says is then nobody's.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exporter.errors import Refused

NAME = "exporter-device.lock"
POLL_SECONDS = 0.2
MOST = 4096


def path() -> Path:
    """Where it lies: where every account of the device can reach it."""
    return Path(tempfile.gettempdir()) / NAME


def owner() -> dict[str, Any] | None:
    """Who holds the device now, as far as they said; None where nobody does."""
    try:
        file = os.open(path(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(file)
    finally:
        os.close(file)
    return None


@contextmanager
def held(who: Mapping[str, Any], waiting: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Holds the device; waits until whoever has it is done.

    Args:
        who: what to tell others: ``by``, ``what``.
        waiting: told who has it, again and again while it waits.

    Raises:
        Refused: ``device-lock`` where something else lies in its place, or no place can be written.
    """
    while (file := _taken({**who, "pid": os.getpid(), "since": int(time.time())}, waiting)) is None:
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        with suppress(OSError):
            os.ftruncate(file, 0)
        os.close(file)


def _taken(who: Mapping[str, Any], waiting: Callable[[Mapping[str, Any]], None]) -> int | None:
    """The lock with our name in it, or None while another has it."""
    file = _opened()
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), path().lstat()):
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(who).encode()[:MOST], 0)
            return file
    except BlockingIOError:
        waiting(_read(file))
    except FileNotFoundError:  # removed meanwhile: what was locked is no longer what others find
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _opened() -> int:
    # First without O_CREAT: a kernel that guards shared folders opens no other account's file with it.
    place, flags = _place(), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            file = os.open(place, flags)
        except FileNotFoundError:
            file = os.open(place, flags | os.O_CREAT, 0o666)
            with suppress(OSError):
                os.fchmod(file, 0o666)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError("it is no regular file")
    except OSError as error:
        raise _refused(error, str(place), f"ls -l {place}; remove it if it is no lock") from None
    return file


def _place() -> Path:
    """Where the lock lies; a folder of temporary files is none that cannot be written, or has no room."""
    try:
        return path()
    except FileNotFoundError as error:
        raise _refused(
            error, "TMPDIR", "df /tmp; make room there, or set TMPDIR to a folder that can be written"
        ) from None


def _refused(error: OSError, where: str, remedy: str) -> Refused:
    what = f"the device's lock cannot be opened: {error.strerror or error}"
    why = "two users who measure at once measure one another"
    return Refused("device-lock", what, where=where, why=why, next=remedy)


def _read(file: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(file, MOST, 0) or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    since = found.get("since")  # by this device's clock, which is nobody else's
    return {**found, "seconds": max(0, int(time.time()) - since)} if isinstance(since, int) else found
