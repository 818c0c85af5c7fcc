"""A real sshd on loopback, run by this user, with keys made for it: the other machine of a test."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.cli_fakes.tool import alive, descendants, environment, until
from tests.device.there import PYTHON

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@cache
def absent() -> str:
    """An empty text, or why there can be no device behind ssh here."""
    if SSHD is None or shutil.which("ssh") is None:
        return "no OpenSSH server and client here: apt-get install openssh-server"
    return ""


@dataclass
class Server:
    """An sshd with everything of its own under one folder.

    Attributes:
        folder: keys, configurations, and the home that a login gets.
        options: lines of its configuration beside the usual ones.
        env: what a login gets in its environment.
    """

    folder: Path
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.home = self.folder / "home there"  # with a space: nothing may care
        self.home.mkdir(parents=True, exist_ok=True)
        for name in ("host", "user"):
            if not (self.folder / name).exists():
                _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name))
        (self.folder / "authorized").write_bytes((self.folder / "user.pub").read_bytes())
        self.port = self.port or free_port()
        self.trust()
        self.client()

    # ---- this side

    def trust(self, key: str | None = None) -> None:
        """Makes the host's key known here: its own, or another; nothing where it is empty."""
        known = (self.folder / "host.pub").read_text() if key is None else key
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {known}\n" if known else "")

    def client(self, *lines: str) -> None:
        """Writes the user's own ssh configuration."""
        usual = [f"IdentityFile {self.folder / 'user'}", f"UserKnownHostsFile {self.folder / 'known'}",
                 "GlobalKnownHostsFile /dev/null", "IdentitiesOnly yes", "IdentityAgent none",
                 "ServerAliveInterval 1", "ServerAliveCountMax 3"]  # fmt: skip
        (self.folder / "config").write_text("\n".join([*lines, *usual]) + "\n")

    @property
    def here(self) -> dict[str, str]:
        """What a command here needs in its environment to reach it."""
        return {"EXPORTER_SSH_CONFIG": str(self.folder / "config")}

    @property
    def address(self) -> str:
        """Its address, with the interpreter of a device."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}?python={PYTHON}"

    @property
    def label(self) -> str:
        """What its lines are marked with."""
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    # ---- that side

    def start(self) -> Server:
        """Starts it; back when it listens."""
        assert SSHD is not None
        there = {"HOME": str(self.home), "TMPDIR": str(self.home), "PYTHONPATH": "", **self.env}
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.folder / 'host'}", "UsePAM no",
            f"AuthorizedKeysFile {self.folder / 'authorized'}", "StrictModes no", "PasswordAuthentication no",
            f"PidFile {self.folder / 'pid'}", "PermitRootLogin yes", "LogLevel ERROR", *self.options,
            "SetEnv " + " ".join(f'"{name}={value}"' for name, value in there.items()),
        ]  # fmt: skip
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        log = (self.folder / "log").open("ab")
        words = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(words, stdout=log, stderr=log, env=environment(PYTHONPATH=None))
        until(self._listens, 20)
        return self

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as found:
            return found.connect_ex(("127.0.0.1", self.port)) == 0

    def sessions(self) -> set[int]:
        """Every process below it: of sshd's own, and of ours there."""
        return descendants(self.process.pid)

    def working(self) -> set[int]:
        """The processes of ours there."""
        return {pid for pid in self.sessions() if b"python" in _line(pid)}

    def cut(self) -> None:
        """Kills every connection, and what sshd has for it, but not the listener."""
        for pid in self.sessions():
            if b"sshd" in _line(pid):
                _kill(pid)

    def kill(self) -> None:
        """Kills the listener and every connection."""
        below = self.sessions()
        self.process.kill()
        self.process.wait()
        for pid in below:
            if b"sshd" in _line(pid):
                _kill(pid)

    def stop(self) -> None:
        """Ends it with all below it."""
        if self.process.poll() is None:
            below = self.sessions()
            self.process.kill()
            self.process.wait()
            for pid in below:
                _kill(pid)

    @property
    def kept(self) -> Path:
        """Where our side keeps what was copied."""
        return self.home / ".cache" / "exporter" / "devices"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def gone(pids: set[int], patience: float = 20) -> None:
    """Waits until none of these processes runs."""
    until(lambda: not any(alive(pid) for pid in pids), patience)


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
