"""Whatever happens to the line to a device, or is wrong there: an error in four parts, nothing left running, the bundle
here as it was. The table of ``docs/devices.md`` is this file's list."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.bundle import editing
from exporter.devices import commands, session
from exporter.errors import StageFailed
from tests.cli_fakes.tool import Ended, contents, ended, exported, run, spawn, until
from tests.device import there
from tests.fakes import sshd
from tests.fakes.sshd import Server, free_port, gone

LARGE = 96 << 20


@pytest.fixture(autouse=True, scope="module")
def _possible() -> None:
    reason = sshd.absent() or there.absent()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Not started yet: a fault may have to be there before it is."""
    made = Server(tmp_path / "device")
    yield made
    if hasattr(made, "process"):
        made.stop()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported("tiny", "openvino", "mobile"), tmp_path / "tiny.bundle"))


@pytest.fixture
def large(bundle: Path) -> Path:
    """A bundle that takes a while to copy."""
    with editing(bundle, "test") as draft:
        assert draft.old is not None
        file = draft.work / "large.bin"
        file.write_bytes(os.urandom(LARGE))
        manifest = draft.old.manifest
        key, name = "mobile/fp32", draft.add(file, "targets/mobile/fp32/large.bin")
        info = replace(manifest.targets[key], files=manifest.targets[key].files | {"large": name})
        draft.commit(replace(manifest, targets=manifest.targets | {key: info}))
    return bundle


def asked(server: Server, *words: object, address: str = "", **more: Any) -> Ended:
    return run(*words, "--on", address or server.address, cwd=server.folder, env={**server.here, **more})


def verify(server: Server, bundle: Path, address: str = "") -> Ended:
    """Verifies there; whatever comes of it, the bundle here is as it was and nothing runs there."""
    before = contents(bundle)
    found = asked(server, "verify", bundle, "--target", "mobile", address=address)
    assert contents(bundle) == before
    if hasattr(server, "process"):
        gone(server.sessions())
    return found


def script(server: Server, name: str, *lines: str) -> Path:
    path = server.folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def with_python(server: Server, path: Path) -> str:
    return f"{server.address.partition('?')[0]}?python={path}"


# ------------------------------------------------------------------------------------------------- no way to it


def test_a_name_that_nobody_knows(server: Server, bundle: Path) -> None:
    said = verify(server, bundle, "ssh://no-such-host.invalid").failed("device-unreachable", 4)
    assert "no-such-host.invalid does not answer" in said and "nothing was copied" in said


def test_nothing_listens(server: Server, bundle: Path) -> None:
    said = verify(server, bundle, f"ssh://127.0.0.1:{free_port()}").failed("device-unreachable", 4)
    assert "Connection refused" in said and "ssh -F" in said


def test_something_listens_and_never_speaks(server: Server, bundle: Path) -> None:
    server.client("ConnectTimeout 1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        address = f"ssh://127.0.0.1:{silent.getsockname()[1]}"
        verify(server, bundle, address).failed("device-unreachable", 4)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("lines", [(), ("StrictHostKeyChecking no",), ("StrictHostKeyChecking yes",)])
def test_a_host_key_that_is_not_known(server: Server, bundle: Path, lines: tuple[str, ...]) -> None:
    server.start().trust("")
    server.client(*lines)
    said = verify(server, bundle).failed("bad-host-key", 2)
    assert "not known here" in said and (server.folder / "known").read_text() == ""


def test_a_host_key_that_the_user_accepts_when_new(server: Server, bundle: Path) -> None:
    server.start().trust("")
    server.client("StrictHostKeyChecking accept-new")
    assert verify(server, bundle).code == 0
    assert (server.folder / "known").read_text() != ""


@pytest.mark.parametrize("lines", [(), ("StrictHostKeyChecking no",)])
def test_another_host_key(server: Server, bundle: Path, lines: tuple[str, ...]) -> None:
    server.start().trust((server.folder / "user.pub").read_text())
    server.client(*lines)
    said = verify(server, bundle).failed("bad-host-key", 2)
    assert "another host key" in said and "ssh-keygen -R" in said


def test_a_password_is_never_waited_for(server: Server, bundle: Path) -> None:
    server.options = ("PasswordAuthentication yes", "KbdInteractiveAuthentication yes")
    server.start()
    (server.folder / "authorized").write_text("")
    said = verify(server, bundle).failed("login-refused", 2)
    assert "ssh-copy-id" in said


# --------------------------------------------------------------------------------------------- not fit for it


def bare(server: Server) -> None:
    """A path on which there is a shell and nothing else."""
    place = server.folder / "bin"
    place.mkdir()
    (place / "sh").symlink_to("/bin/sh")
    server.env["PATH"] = str(place)


def test_no_python(server: Server, bundle: Path) -> None:
    bare(server)
    server.start()
    said = verify(server, bundle, server.address.partition("?")[0]).failed("device-unprepared", 3)
    assert "has no python3 of 3.10 or newer" in said
    assert f"--on '{server.address.partition('?')[0]}?python=/PATH/TO/python3'" in said


def test_an_old_python(server: Server, bundle: Path) -> None:
    bare(server)
    script(server, "bin/python3", '[ "$1" = -V ] && { echo Python 3.8.10; exit 0; }', "exit 1")
    server.start()
    said = verify(server, bundle, server.address.partition("?")[0]).failed("device-unprepared", 3)
    assert "Python 3.8.10" in said


def test_a_python_that_is_not_there(server: Server, bundle: Path) -> None:
    server.start()
    place = f"{server.folder}/no%20such;touch%20{server.folder}/oops;$(touch%20{server.folder}/oops)'%22/python3"
    said = verify(server, bundle, with_python(server, Path(place))).failed("device-unprepared", 3)
    assert "no such;touch" in said and not (server.folder / "oops").exists()


def test_a_python_without_what_our_side_imports(server: Server, bundle: Path) -> None:
    python = script(server, "python", f'exec {there.PYTHON} -I -S "$@"')
    server.start()
    address = with_python(server, python)
    said = verify(server, bundle, address).failed("device-unprepared", 3)
    assert "lacks numpy>=1.26" in said and "/bin/python -m pip install 'numpy>=1.26' 'polygraphy" in said
    assert f"{there.PYTHON} -m venv" in said, "it has no pip of its own"
    assert "?python=~/.exporter-device/bin/python'" in said, "the address named another"


def test_a_python_without_the_runtime(server: Server, bundle: Path) -> None:
    held, place = there.PYTHON.parent.parent, server.folder / "packages"
    (libraries,) = held.glob("lib/python3*/site-packages")
    place.mkdir()
    for name in ("numpy", "numpy.libs", "polygraphy", "safetensors"):
        if (libraries / name).exists():
            (place / name).symlink_to(libraries / name)
    python = script(server, "python", f'PYTHONPATH={place} exec {there.PYTHON} -S "$@"')
    server.start()
    found = verify(server, bundle, with_python(server, python))
    assert found.code == 3 and "SKIPPED" in found.out, found
    assert "onnxruntime is not installed" in found.out and "-m pip install onnxruntime" in found.out


@pytest.mark.parametrize("end", [r"\n", r"\033]0;pi@board\007"])
def test_a_login_that_prints(server: Server, bundle: Path, end: str) -> None:
    noise = rf"printf '\033[2J\033]0;mine\007 welcome\n0 0\n{{}}{end}'"
    (server.home / ".bashrc").write_text(f"{noise}\n{noise} >&2\n")
    found = verify(server.start(), bundle)
    assert found.code == 0 and "\033" not in found.out + found.err and "welcome" not in found.out, found


MARK = r"printf 'exporter-device/1\n"
HELLO = '{"kind":"hello","python":"\\u001b[2J","executable":3}'


@pytest.mark.parametrize(
    "says",
    [
        "echo no python at all",
        "yes | head -c 200000",
        rf"{MARK}9 0\n[1, 2, 3]'",
        rf"{MARK}99999999999 0\n'",
        rf"{MARK}{len(HELLO)} 0\n%s' '{HELLO}'",
    ],
)
def test_a_python_that_is_none(server: Server, bundle: Path, says: str) -> None:
    python = script(server, "python", '[ "$3" ] || case $2 in *version_info*) exit 0;; esac', says)
    said = verify(server.start(), bundle, with_python(server, python)).failed("bad-answer", 4)
    address = server.address.partition("?")[0]
    assert "\033" not in said and f"--on {address}" in said and f"exporter doctor --on {address};" in said


# --------------------------------------------------------------------------------------------- while it copies


class Watched:
    """A command in this process, so that what it tells can be acted upon."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXPORTER_SSH_CONFIG", server.here["EXPORTER_SSH_CONFIG"])
        monkeypatch.setattr(session, "PAUSES", (0.1, 0.1, 0.1))
        self.server, self.first, self.told = server, True, list[tuple[str, Mapping[str, Any]]]()

    def verify(self, bundle: Path, act: Any) -> dict[str, Any]:
        def progress(stage: str, event: Mapping[str, Any]) -> None:
            self.told.append((stage, dict(event)))
            if stage == "copy" and event.get("done", 0) >= 16 and self.first:
                self.first = False
                act()

        limits = {"timeout": 60.0, "memory": None}
        return commands.verify(self.server.address, bundle, ["mobile"], limits, progress)

    def copied(self) -> list[int]:
        """How many MB were still to be copied, attempt by attempt."""
        return list(dict.fromkeys(event["of"] for stage, event in self.told if "of" in event and stage == "copy"))


def test_a_connection_killed_while_copying_is_taken_up_again(
    server: Server, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, watched = contents(large), Watched(server.start(), monkeypatch)
    assert watched.verify(large, server.cut)["verdict"] == "PASS"
    whole, rest = watched.copied()
    assert rest < whole, "the second attempt went on where the first broke"
    assert contents(large) == before and not list((server.kept / "partial").iterdir())


def test_a_server_gone_while_copying(server: Server, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(server.start(), monkeypatch)
    with pytest.raises(StageFailed) as lost:
        watched.verify(large, server.kill)
    error = lost.value
    assert error.code == "connection-lost" and str(server.kept) in error.why and "rm -r" in error.next
    left = max(path.stat().st_size for path in (server.kept / "partial").iterdir())
    assert 0 < left < LARGE
    server.start()
    again = Watched(server, monkeypatch)
    assert again.verify(large, lambda: None)["verdict"] == "PASS"
    assert again.copied()[0] <= (LARGE - left >> 20) + 2


def test_a_full_disk_there(server: Server, large: Path) -> None:
    server.options = ('ForceCommand ulimit -f 20480; eval "$SSH_ORIGINAL_COMMAND"',)
    said = verify(server.start(), large).failed("disk-full", 4)
    assert "bytes free" in said and str(server.kept) in said


def test_a_folder_that_cannot_be_written(server: Server, bundle: Path) -> None:
    (server.home / "file").write_text("")
    server.env["XDG_CACHE_HOME"] = str(server.home / "file" / "cache")
    said = verify(server.start(), bundle).failed("unwritable-folder", 2)
    assert "XDG_CACHE_HOME" in said


@pytest.mark.parametrize("what", ["partial", "file", "side"])
def test_what_is_damaged_there_is_copied_again(server: Server, bundle: Path, what: str) -> None:
    assert verify(server.start(), bundle).code == 0
    (place,) = (server.kept / "bundles").iterdir()
    victim = next(place.rglob("*.safetensors"))
    whole = victim.read_bytes()
    if what == "partial":
        import hashlib

        victim.unlink()
        (server.kept / "partial" / hashlib.sha256(whole).hexdigest()).write_bytes(b"x" * (len(whole) // 2))
    elif what == "file":
        victim.write_bytes(whole[:-1] + b"x")
    else:
        (side,) = (server.kept / "side").iterdir()
        (side / "exporter" / "errors.py").write_text("half of")
    found = verify(server, bundle)
    assert found.code == 0, found
    assert victim.read_bytes() == whole


# --------------------------------------------------------------------------------------------- while it works


class Working:
    """A profile that is measuring there."""

    def __init__(self, server: Server, bundle: Path) -> None:
        self.server, self.bundle, self.before = server, bundle, contents(bundle)
        words = ("profile", bundle, "--target", "mobile", "--seconds", 60, "--save", "--on", server.address)
        self.command = spawn(*words, cwd=server.folder, env=server.here)
        until(lambda: len(server.working()) >= 3)  # our side, and the children that are timed
        self.there = server.working()

    def end(self) -> Ended:
        """How the command ended; nothing runs there any more, and the bundle is as it was."""
        found = ended(self.command)
        gone(self.there)
        assert contents(self.bundle) == self.before
        return found


def test_a_connection_killed_while_working(server: Server, bundle: Path) -> None:
    work = Working(server.start(), bundle)
    server.cut()
    said = work.end().failed("connection-lost", 4)
    assert "ends when nobody listens" in said and str(server.kept) in said and "rm -r" in said


def test_a_connection_that_is_frozen(server: Server, bundle: Path) -> None:
    work = Working(server.start(), bundle)
    lines = server.sessions() - server.working()
    for pid in lines:
        os.kill(pid, signal.SIGSTOP)
    try:
        found = ended(work.command, 60)
    finally:
        for pid in lines:
            os.kill(pid, signal.SIGCONT)
    found.failed("connection-lost", 4)
    gone(work.there)


def test_our_side_killed_there(server: Server, bundle: Path) -> None:
    work = Working(server.start(), bundle)
    os.kill(min(work.there), signal.SIGKILL)  # the first of them: the parent of the others
    work.end().failed("connection-lost", 4)


def test_ctrl_c_here(server: Server, bundle: Path) -> None:
    work = Working(server.start(), bundle)
    os.kill(work.command.pid, signal.SIGINT)
    assert work.end().code == 130


def test_kill_9_here(server: Server, bundle: Path) -> None:
    work = Working(server.start(), bundle)
    os.kill(work.command.pid, signal.SIGKILL)
    assert work.end().code == -signal.SIGKILL


def test_a_lock_whose_owner_is_dead(server: Server, bundle: Path) -> None:
    lock = server.home / "exporter-device.lock"
    lock.write_text('{"by": "nobody@nowhere", "what": "exporter profile", "pid": 4194303, "since": 1}')
    looked = asked(server.start(), "doctor", "--json")
    assert looked.json["machine"]["in use"] == "by nobody"
    found = verify(server, bundle)
    assert found.code == 0 and "wait ..." not in found.err, found


def test_something_else_where_the_lock_should_be(server: Server, bundle: Path) -> None:
    victim = server.home / "precious"
    victim.write_text("mine")
    (server.home / "exporter-device.lock").symlink_to(victim)
    verify(server.start(), bundle).failed("device-lock", 2)
    assert victim.read_text() == "mine"


def test_a_bundle_damaged_here(server: Server, bundle: Path) -> None:
    victim = next((bundle / "cases").glob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    verify(server.start(), bundle).failed("digest-mismatch", 2)
    assert not list((server.kept / "bundles").rglob("manifest.json"))
