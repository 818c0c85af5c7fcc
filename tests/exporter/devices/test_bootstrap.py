"""The one command that runs on a device, and the messages that follow it; here without any ssh between."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exporter.devices import bootstrap, connection, side, work
from exporter.devices.address import Address
from exporter.devices.bootstrap import CHUNK, Ended, Frames
from exporter.devices.connection import Connection, Lost
from exporter.devices.device import FINDS_PYTHON
from exporter.errors import ExporterError, Refused
from tests.cli_fakes.tool import ROOT


class Here:
    """A kind of device that is this machine: what ssh does, without it."""

    def __init__(self, home: Path, python: str = sys.executable) -> None:
        self.address, self.home = Address("here", python=python), home

    def start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        env = {**os.environ, "HOME": str(self.home), "TMPDIR": str(self.home), "PYTHONPATH": ""}
        env.pop("XDG_CACHE_HOME", None)
        return subprocess.Popen(["sh", "-c", FINDS_PYTHON], stdin=pipe, stdout=pipe, stderr=pipe, env=env)

    def refusal(self, status: int, said: str) -> ExporterError | None:
        return None

    def removal(self, folder: str) -> str:
        return f"rm -r {folder}"


# ------------------------------------------------------------------------------------------------------- messages


def over(data: bytes, step: int = 1 << 20) -> Frames:
    file = io.BytesIO(data)
    return Frames(lambda most: file.read(min(most, step)), lambda _: None)


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_messages_come_as_they_went(step: int) -> None:
    out = bytearray()
    sender = Frames(lambda _: b"", out.extend)
    sender.send("put", b"\n0 0\n\x00" * 9, file="a\nb; c")
    sender.send("end")
    receiver = over(bytes(out), step)
    assert receiver.receive() == ({"file": "a\nb; c", "kind": "put"}, b"\n0 0\n\x00" * 9)
    assert receiver.receive() == ({"kind": "end"}, b"")
    with pytest.raises(Ended):
        receiver.receive()


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"x y\n", b"-1 0\n", b"2\n{}", b"2 0\n{}", b"2 0\n[]", b'12 0\n{"kind": 12}', b"99999999999 0\n",
     f"2 {CHUNK + 1}\n".encode(), b"2 5\n{}abc", b"1" * 100, b"3 0\n{}"],
)  # fmt: skip
def test_what_is_no_message_ends_it(data: bytes) -> None:
    with pytest.raises(Ended):
        over(data).receive()


# ---------------------------------------------------------------------------------------------------- the command


def test_our_package_is_taken_once_and_checked_each_time(tmp_path: Path) -> None:
    for expected in (False, True):
        with Connection(Here(tmp_path)) as line:
            line.open()
            assert line.hello["side"] is expected and line.hello["missing"] == []
            assert line.ask("facts", all=True)["facts"]["python"] == sys.version.split()[0]
    (place,) = (tmp_path / ".cache" / "exporter" / "devices" / "side").iterdir()
    assert place.name == side.digest() == bootstrap.listed(place)
    victim = place / "exporter" / "errors.py"
    assert victim.read_bytes() == (ROOT / "exporter" / "errors.py").read_bytes()
    victim.write_bytes(victim.read_bytes()[:100])
    with Connection(Here(tmp_path)) as line:
        line.open()
        assert line.hello["side"] is False
        line.ask("facts", all=False)
    assert victim.read_bytes() == (ROOT / "exporter" / "errors.py").read_bytes()


def unpacked(place: Path) -> None:
    """As a command does that was told that there is none."""
    out = bytearray()
    Frames(lambda _: b"", out.extend).send("end", side.packed(), name="side")
    assert bootstrap._unpacked(over(bytes(out)), place) == place


def test_a_package_that_another_command_unpacked_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    place = tmp_path / side.digest()
    unpacked(place)
    taken = place.stat().st_ino
    unpacked(place)
    assert place.stat().st_ino == taken, "it runs from there"
    (place / "exporter" / "errors.py").write_text("half of")
    unpacked(place)
    assert bootstrap.listed(place) == place.name and list(tmp_path.iterdir()) == [place]


def test_first_commands_of_one_account_may_be_several(tmp_path: Path) -> None:
    place = tmp_path / side.digest()
    (place / "exporter").mkdir(parents=True)
    (place / "exporter" / "errors.py").write_text("half of")
    with ThreadPoolExecutor(4) as several:
        assert not any(several.map(unpacked, [place] * 4))
    assert bootstrap.listed(place) == place.name and list(tmp_path.iterdir()) == [place]


def test_our_package_is_the_same_bytes_every_time() -> None:
    assert side.packed() == side.packed()


APART = "/p -m venv --system-site-packages ~/.exporter-device && ~/.exporter-device/bin/python -m pip install "


@pytest.mark.parametrize(("managed", "own", "takes"), [(True, False, False), (True, True, True), (False, False, True)])
def test_a_python_that_its_system_manages_takes_no_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, managed: bool, own: bool, takes: bool
) -> None:
    monkeypatch.setattr(bootstrap.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(bootstrap.sys, "prefix", "/own" if own else sys.base_prefix)
    monkeypatch.setattr(bootstrap, "find_spec", lambda name: name == "pip" or None)
    if managed:
        (tmp_path / "EXTERNALLY-MANAGED").touch()
    assert bootstrap.takes_packages() is takes
    monkeypatch.setattr(bootstrap, "find_spec", lambda _: None)
    assert not bootstrap.takes_packages(), "it has no pip"


@pytest.mark.parametrize(
    ("pip", "venv", "line"),
    [
        (True, True, "/p -m pip install "),
        (False, True, APART),
        (False, False, f"sudo apt-get install python3-venv && {APART}"),
    ],
)
def test_a_line_that_installs_works_where_it_is_told(tmp_path: Path, pip: bool, venv: bool, line: str) -> None:
    with Connection(Here(tmp_path)) as made:
        made.hello = {"executable": "/p", "pip": pip, "venv": venv}
        assert made.install == line


def test_a_folder_of_the_user_there_shadows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "numpy", "exporter", "hashlib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one was imported')\n")
    monkeypatch.chdir(tmp_path)
    with Connection(Here(tmp_path)) as line:
        line.open()
        assert line.ask("facts", all=False)["moment"]


def test_an_error_there_is_an_error_here(tmp_path: Path) -> None:
    with Connection(Here(tmp_path)) as line:
        line.open()
        with pytest.raises(Refused, match="bad-manifest") as refused:
            line.ask("lacking", data=b"{}", name="0" * 64, wanted=[], bytes=2)
        assert "on here" in refused.value.where


def test_a_device_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENCE_SECONDS", 0.5)
    with Connection(Here(tmp_path)) as line:
        line.open()
        process = line._process
        os.kill(line.hello["pid"], 19)
        try:
            with pytest.raises(Lost, match="nothing came for"):
                line.ask("facts", all=False)
        finally:
            os.kill(line.hello["pid"], 18)
    assert process.returncode is not None


def test_it_ends_when_nobody_speaks_any_more(tmp_path: Path) -> None:
    """Even where all that it says still finds a reader, and it is in the middle of something."""
    with (tmp_path / "exporter-device.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with Connection(Here(tmp_path)) as line:
            line.open()
            line.tell("lock", by="me", what="waits for ever")
            value, _ = line._frames.receive()
            assert value["stage"] == "wait"
            assert line._process.stdin is not None
            line._process.stdin.close()
            line._quiet.set()
            assert line._process.wait(30) == 1


def test_a_goodbye_ends_what_works_at_once_though_it_says_nothing(tmp_path: Path) -> None:
    """Ctrl-C here: nobody waits for the answer, and a quiet stage has no progress to fail at telling."""
    with (tmp_path / "exporter-device.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with Connection(Here(tmp_path)) as line:
            line.open()
            line.tell("lock", by="me", what="waits for ever")
            value, _ = line._frames.receive()
            assert value["stage"] == "wait"
            line._frames.send("bye")
            line._quiet.set()
            assert line._process.wait(8) == 1


SLOW = (
    "import os, sys; from exporter.devices import there; from exporter.devices.bootstrap import Frames\n"
    "there.SILENCE_SECONDS, there.PULSE_SECONDS = 2.0, 0.1\n"
    "there.serve(Frames(sys.stdin.buffer.read1, lambda data: os.write(1, data)))"
)


def test_a_message_that_comes_slowly_is_no_silence(tmp_path: Path) -> None:
    """As of a file that is copied over a poor line, where one message takes longer than silence may."""
    out, env = bytearray(), {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    Frames(lambda _: b"", out.extend).send("facts", b"x" * 100, all=False)
    with subprocess.Popen([sys.executable, "-c", SLOW], stdin=-1, stdout=-1, env=env, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None
        frames = Frames(process.stdout.read, lambda _: None)
        assert frames.receive()[0]["kind"] == "pulse"
        for start in range(0, len(out), 10):
            process.stdin.write(out[start : start + 10])
            time.sleep(0.3)
        while (said := frames.receive()[0])["kind"] == "pulse":
            pass
        assert said["kind"] == "answer"
        process.stdin.close()


def test_what_is_kept_is_counted_while_another_command_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/stays", "a/goes"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")

    def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        yield str(folder / "a"), [], ["goes", "stays"]

    (tmp_path / "a" / "goes").unlink()
    monkeypatch.setattr(work.os, "walk", walk)
    assert work.kept(tmp_path) == 5


def test_our_package_that_is_in_use_is_not_old(tmp_path: Path) -> None:
    with Connection(Here(tmp_path)) as line:
        line.open()
        line.ask("facts", all=False)
    (place,) = (tmp_path / ".cache" / "exporter" / "devices" / "side").iterdir()
    os.utime(place, (1.0, 1.0))
    with Connection(Here(tmp_path)) as line:
        line.open()
        line.ask("lock", by="me", what="expires what is old")
        assert place.is_dir()
