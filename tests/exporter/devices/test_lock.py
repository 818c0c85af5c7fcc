"""One user of a device at a time; whatever ends its owner frees it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.devices import lock
from exporter.devices.session import holder
from exporter.errors import Refused
from tests.cli_fakes.tool import ROOT, until

HOLDS = (
    "import sys, time; from exporter.devices import lock\n"
    "with lock.held({'by': 'ann@desk', 'what': 'exporter profile'}, print): print('held', flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / lock.NAME


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", HOLDS], env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def never(owner: Mapping[str, Any]) -> None:
    raise AssertionError(f"nobody has it, and {owner} is waited for")


def test_it_is_free_before_and_after(place: Path) -> None:
    assert lock.owner() is None
    with lock.held({"by": "me", "what": "x"}, never):
        assert stat.S_IMODE(place.stat().st_mode) == 0o666, "another account may take it next"
    assert lock.owner() is None and place.read_bytes() == b""
    with lock.held({"by": "me", "what": "x"}, never):
        pass


def test_who_has_it_is_told_until_they_are_gone(other: subprocess.Popen[bytes]) -> None:
    owner = lock.owner()
    assert owner is not None and owner["by"] == "ann@desk" and owner["pid"] == other.pid
    assert abs(owner["since"] - time.time()) < 60 and 0 <= owner["seconds"] < 60
    assert holder({"by": "ann@desk", "what": "x", "since": 1, "seconds": 7}) == "ann@desk has it for 7 s: x"
    told: list[Mapping[str, Any]] = []
    done = threading.Event()

    def take() -> None:
        with lock.held({"by": "me", "what": "y"}, told.append):
            done.set()

    waiter = threading.Thread(target=take, daemon=True)
    waiter.start()
    until(lambda: told)
    assert told[0]["what"] == "exporter profile" and not done.is_set()
    other.send_signal(signal.SIGKILL)  # it has no chance to clean up
    assert done.wait(20)


def test_a_file_that_is_removed_meanwhile_is_no_lock(place: Path) -> None:
    with lock.held({"by": "me", "what": "x"}, never):
        place.unlink()
        with lock.held({"by": "me", "what": "the new file"}, never):
            assert place.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 9000, b"[" * 4000])
def test_an_owner_that_says_nothing_readable(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    assert lock.owner() is None
    with lock.held({"by": "me", "what": "x"}, never):
        place.write_bytes(content)
        assert lock.owner() == {}


def test_a_device_with_no_room_for_a_lock_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(Refused, match="No usable temporary directory") as refused:
        lock._opened()
    error = refused.value
    assert error.code == "device-lock" and error.where == "TMPDIR" and error.why and "df /tmp" in error.next
    assert lock.owner() is None


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_what_is_no_lock_is_refused_and_left_alone(place: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "precious").write_text("mine")
    {"link": lambda: place.symlink_to(tmp_path / "precious"), "pipe": lambda: os.mkfifo(place), "folder": place.mkdir}[
        what
    ]()
    with pytest.raises(Refused, match="device-lock"), lock.held({"by": "me", "what": "x"}, never):
        pass
    assert lock.owner() is None and (tmp_path / "precious").read_text() == "mine"
