"""A device behind the system's OpenSSH: its keys, its configuration, its agent and its jumps are ssh's own business."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.devices.address import Address
from exporter.devices.device import FINDS_PYTHON
from exporter.errors import ExporterError, Incomplete, Refused, StageFailed

CONFIG = "EXPORTER_SSH_CONFIG"
# Nothing is asked of anybody, nothing is forwarded, and no connection outlives the command.
ALWAYS = ("BatchMode=yes", "ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no",
          "ControlMaster=no", "RequestTTY=no", "LogLevel=ERROR")  # fmt: skip
# Where the user's configuration says nothing, or would wait for ever.
UNLESS_SAID = {
    "connecttimeout": ("ConnectTimeout", "15", ("none", "0")),
    "serveraliveinterval": ("ServerAliveInterval", "5", ("0",)),
    # A host that is not known is asked about where somebody could answer; here nobody can. A configuration that
    # checks no keys at all is not followed: what is measured, and what is believed, is this device's.
    "stricthostkeychecking": ("StrictHostKeyChecking", "yes", ("no", "off", "false")),
}
# What a configuration may want of a login by hand, and what would keep our own command from being heard. An older ssh
# knows not all of them, and takes none that it does not know.
OURS = {"remotecommand": "RemoteCommand=none", "sessiontype": "SessionType=default", "stdinnull": "StdinNull=no",
        "forkafterauthentication": "ForkAfterAuthentication=no"}  # fmt: skip
NO_REPLY = re.compile(
    r"[Cc]ould not resolve|[Cc]onnection (refused|timed out|reset|closed)|[Nn]o route|unreachable|time.?out"
)


@dataclass(frozen=True)
class Ssh:
    """A device behind ``ssh``."""

    address: Address
    emulated: str = ""

    def words(self, *options: str) -> list[str]:
        """An ``ssh`` command to the device, without what it is to run."""
        config = os.environ.get(CONFIG)
        words = ["ssh", *(["-F", config] if config else []), *(word for one in options for word in ("-o", one))]
        words += ["-p", str(self.address.port)] if self.address.port is not None else []
        words += ["-l", self.address.user] if self.address.user else []
        return [*words, "--", self.address.host]

    def start(self) -> subprocess.Popen[bytes]:
        if shutil.which("ssh") is None:
            raise Incomplete(
                "ssh-absent", "there is no ssh here", where=f"--on {self.address}",
                why="a device is reached by the system's own OpenSSH, with its keys and its configuration",
                next="apt-get install openssh-client, or the like of your system",
            )  # fmt: skip
        *words, separator, host = self.words(*ALWAYS, *_added(self.configured()))
        # A session of its own: Ctrl-C is ours to pass on, in order.
        return subprocess.Popen(
            [*words, "-T", separator, host, f"exec sh -c '{FINDS_PYTHON}'"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def configured(self) -> dict[str, str]:
        """What ssh makes of the user's configuration for this device; nothing where it refuses it."""
        *words, separator, host = self.words()
        try:
            shown = subprocess.run(
                [*words, "-G", separator, host], capture_output=True, text=True, timeout=30, check=False,
                stdin=subprocess.DEVNULL,
            ).stdout  # fmt: skip
        except subprocess.TimeoutExpired:
            shown = ""
        lines = (line.partition(" ")[::2] for line in shown.splitlines())
        return {name.lower(): value for name, value in lines}

    def refusal(self, status: int, said: str) -> ExporterError | None:
        if status not in (255, -9):  # ssh's own, or ours of one that never spoke; others are of what ran there
            return None
        return _refused(self, said or "ssh ended without a word")

    def removal(self, folder: str) -> str:
        return shlex.join([*self.words(), f"rm -r {shlex.quote(folder)}"])


def _added(told: Mapping[str, str]) -> list[str]:
    """Options for what the user's configuration leaves open, or open to anybody, and for what a command needs."""
    unsaid = [
        f"{option}={value}"
        for key, (option, value, open_) in UNLESS_SAID.items()
        if told.get(key, open_[0]).lower() in open_
    ]
    return unsaid + [option for key, option in OURS.items() if key in told]


def connected(address: Address) -> Ssh:
    """The device at an address; nothing is tried yet."""
    if not address.host:
        raise Refused("bad-device", f"{address.kind!a} is no device: it names no host", where=f"--on {address}",
                      why="ssh needs a host", next="--on ssh://user@host")  # fmt: skip
    return Ssh(address)


def _refused(device: Ssh, said: str) -> ExporterError:
    where, by_hand = f"--on {device.address}", shlex.join(device.words())
    if "HOST IDENTIFICATION HAS CHANGED" in said or "Offending" in said:
        return Refused(
            "bad-host-key", f"{device.address.host} shows another host key than the one that is known: {said}",
            where=where, why="it may be another machine, or someone between: what it says could be anybody's",
            next=f"ask who runs it if its key changed; then {_forgotten(device)}",
        )  # fmt: skip
    if "Host key verification failed" in said or "host key is known" in said:
        return Refused(
            "bad-host-key", f"the host key of {device.address.host} is not known here: {said}", where=where,
            why="nobody can be asked here whether this is the machine you mean",
            next=f"{by_hand}, compare the key it shows, and accept it once",
        )  # fmt: skip
    if "Permission denied" in said or "Too many authentication failures" in said or "no mutual signature" in said:
        return Refused(
            "login-refused", f"{device.address.label} lets nobody in without being asked something: {said}",
            where=where, why="a command that may run unattended never waits for a password",
            next=f"ssh-copy-id{_port(device.address)} {_who(device.address)}, and for a key with a passphrase ssh-add",
        )  # fmt: skip
    how = "does not answer" if NO_REPLY.search(said) else "cannot be reached"
    return StageFailed(
        "device-unreachable", f"{device.address.label} {how}: {said}", where=where,
        why="nothing was copied and nothing ran there; the bundle here is as it was", next=by_hand,
    )  # fmt: skip


def _forgotten(device: Ssh) -> str:
    """The line that forgets a host's key, by the name and in the files in which ssh keeps it."""
    told = device.configured()
    host, port = told.get("hostname", device.address.host), told.get("port", str(device.address.port or 22))
    known = told.get("hostkeyalias") or (host if port == "22" else f"[{host}]:{port}")
    whole = told.get("userknownhostsfile", "")  # one with spaces in its name, or several
    files = [name for name in ([whole] if Path(whole).is_file() else whole.split()) if Path(name).is_file()]
    line = ["ssh-keygen", "-R", known]
    return " && ".join(shlex.join([*line, "-f", name]) for name in files) or shlex.join(line)


def _port(address: Address) -> str:
    return f" -p {address.port}" if address.port is not None else ""


def _who(address: Address) -> str:
    return f"{address.user}@{address.host}" if address.user else address.host
