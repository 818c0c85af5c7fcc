"""The system's ssh: what it is told beside the user's own configuration, and what its refusals mean."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from exporter.devices.address import Address
from exporter.devices.kinds.ssh import ALWAYS, OURS, Ssh, _added
from exporter.errors import ExporterError, Incomplete, Refused, StageFailed

DEVICE = Ssh(Address("ssh", "board", "pi", 2222))
needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here")


@needs_ssh
@pytest.mark.parametrize(
    ("lines", "added"),
    [
        ((), {"ConnectTimeout=15", "ServerAliveInterval=5"}),
        (("ServerAliveInterval 9", "ConnectTimeout 3"), set()),
        (("StrictHostKeyChecking no",), {"ConnectTimeout=15", "ServerAliveInterval=5", "StrictHostKeyChecking=yes"}),
        (("Host board", "StrictHostKeyChecking off"),
         {"ConnectTimeout=15", "ServerAliveInterval=5", "StrictHostKeyChecking=yes"}),
        (("StrictHostKeyChecking accept-new",), {"ConnectTimeout=15", "ServerAliveInterval=5"}),
        (("StrictHostKeyChecking ask",), {"ConnectTimeout=15", "ServerAliveInterval=5"}),
        (("Host other", "StrictHostKeyChecking no"), {"ConnectTimeout=15", "ServerAliveInterval=5"}),
    ],
)  # fmt: skip
def test_what_the_user_says_stands_unless_it_is_open_to_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], added: set[str]
) -> None:
    (tmp_path / "config").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("EXPORTER_SSH_CONFIG", str(tmp_path / "config"))
    assert set(_added(DEVICE.configured())) - set(OURS.values()) == added


@needs_ssh
def test_a_client_is_told_nothing_that_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("RemoteCommand tmux new -A\n")
    monkeypatch.setenv("EXPORTER_SSH_CONFIG", str(tmp_path / "config"))
    told = DEVICE.configured()
    assert "RemoteCommand=none" in _added(told)
    old = {key: value for key, value in told.items() if key not in ("sessiontype", "stdinnull")}
    assert not {"SessionType=default", "StdinNull=no"} & set(_added(old))


@needs_ssh
@pytest.mark.parametrize(
    ("lines", "known"),
    [
        ((), "[board]:2222"),
        (("HostName board.lan",), "[board.lan]:2222"),
        (("HostName board.lan", "HostKeyAlias mine"), "mine"),
    ],
)
def test_a_key_is_forgotten_where_ssh_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], known: str
) -> None:
    kept = tmp_path / "known there"
    kept.touch()
    (tmp_path / "config").write_text("\n".join([f'UserKnownHostsFile "{kept}"', *lines]) + "\n")
    monkeypatch.setenv("EXPORTER_SSH_CONFIG", str(tmp_path / "config"))
    error = DEVICE.refusal(255, "REMOTE HOST IDENTIFICATION HAS CHANGED!")
    assert error is not None
    words = shlex.split(error.next.partition("then ")[2])
    assert words == ["ssh-keygen", "-R", known, "-f", str(kept)]


def test_nothing_is_ever_asked() -> None:
    assert "BatchMode=yes" in ALWAYS and "ClearAllForwardings=yes" in ALWAYS


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("ssh: Could not resolve hostname board: Name or service not known", StageFailed, "device-unreachable"),
        ("ssh: connect to host board port 2222: No route to host", StageFailed, "device-unreachable"),
        ("kex_exchange_identification: Connection closed by remote host", StageFailed, "device-unreachable"),
        ("", StageFailed, "device-unreachable"),
        ("Host key verification failed.", Refused, "bad-host-key"),
        ("No ED25519 host key is known for board and you have requested strict checking.", Refused, "bad-host-key"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @ | Verification failed.",
            Refused,
            "bad-host-key",
        ),
        ("Offending ED25519 key in x:1 | Host key verification failed.", Refused, "bad-host-key"),
        ("pi@board: Permission denied (publickey,password).", Refused, "login-refused"),
        ("Received disconnect from board: Too many authentication failures", Refused, "login-refused"),
    ],
)
def test_a_refusal_is_told_in_four_parts(said: str, kind: type[ExporterError], code: str) -> None:
    error = DEVICE.refusal(255, said)
    assert isinstance(error, kind) and error.code == code
    assert all((error.what, error.where, error.why, error.next)) and said in error.what


def test_what_ran_there_is_no_refusal_of_ssh() -> None:
    assert DEVICE.refusal(1, "x") is None and DEVICE.refusal(97, "x") is None


def test_a_removal_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPORTER_SSH_CONFIG", raising=False)
    words = shlex.split(DEVICE.removal("/home/a b/.cache/exporter/devices;x"))
    assert words[:-1] == ["ssh", "-p", "2222", "-l", "pi", "--", "board"]
    assert shlex.split(words[-1]) == ["rm", "-r", "/home/a b/.cache/exporter/devices;x"]


def test_a_machine_without_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Incomplete, match="ssh-absent"):
        DEVICE.start()
