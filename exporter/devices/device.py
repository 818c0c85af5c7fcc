"""What a kind of device is: a way to start one fixed program there, and to say why that ended."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Protocol

from exporter.devices.address import Address, parsed
from exporter.errors import ExporterError

KINDS = Path(__file__).resolve().parent / "kinds"

# Finds an interpreter and gives it what follows. A constant: what differs comes through standard input, line by line,
# where no shell reads it. It holds no single quote, so that any login shell passes it on as it is.
FINDS_PYTHON = (
    "IFS= read -r wanted; "
    'case $wanted in "~/"*) wanted=$HOME/${wanted#??};; esac; '
    'new="import sys; sys.exit(sys.version_info < (3, 10))"; '
    'run="import sys; sys.path[:] = filter(len, sys.path); i = sys.stdin.buffer; exec(i.read(int(i.readline())))"; '
    'try() { "$1" -c "$new" </dev/null 2>/dev/null && exec "$1" -c "$run"; }; '
    'if [ "$wanted" ]; then try "$wanted"; "$wanted" -V </dev/null >&2; exit 97; fi; '
    'for p in "$HOME/.exporter-device/bin/python" python3 python3.14 python3.13 python3.12 python3.11 python3.10; '
    'do try "$p"; done; python3 -V </dev/null >&2; exit 97'
)
NO_PYTHON = 97


class Device(Protocol):
    """A device that can be reached.

    Attributes:
        address: where it is.
    """

    address: Address

    @property
    def emulated(self) -> str:
        """What stands in for its processor; nothing where it is what it says. No timing of an emulated one counts."""
        ...

    def start(self) -> subprocess.Popen[bytes]:
        """A process whose standard input and output are those of :data:`FINDS_PYTHON` there.

        Raises:
            ExporterError: it cannot even be tried from here.
        """
        ...

    def refusal(self, status: int, said: str) -> ExporterError | None:
        """Why that process ended before anything of ours spoke; None where that is not the device's way to say no.

        Args:
            status: its exit status.
            said: its last lines on standard error, fit for a terminal.
        """
        ...

    def removal(self, folder: str) -> str:
        """The command that removes a folder there."""
        ...


def kinds() -> list[str]:
    """The kinds of devices, by file name, without importing any."""
    return sorted(path.stem for path in KINDS.glob("*.py") if not path.name.startswith("_"))


def found(text: str) -> Device:
    """The device at an address.

    Raises:
        Refused: ``bad-device``.
    """
    address = parsed(text, kinds())
    made: Device = importlib.import_module(f"exporter.devices.kinds.{address.kind}").connected(address)
    return made
