"""An arm64 processor under qemu on this machine: its kernels are real, so parity counts; its clock is nobody's."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass, replace

from exporter.devices import emulation
from exporter.devices.address import Address
from exporter.devices.device import FINDS_PYTHON
from exporter.errors import ExporterError, Refused


@dataclass(frozen=True)
class Arm64:
    """The machine that :mod:`exporter.devices.emulation` makes."""

    address: Address

    @property
    def emulated(self) -> str:
        known = emulation.versions()
        return f"{known['core']} by {known['qemu']}"

    def start(self) -> subprocess.Popen[bytes]:
        # A folder of its own for what is copied there, as another machine has.
        env = {**os.environ, "XDG_CACHE_HOME": str(emulation.place() / "cache")}
        return subprocess.Popen(
            ["/bin/sh", "-c", FINDS_PYTHON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env=env,
        )  # fmt: skip

    def refusal(self, status: int, said: str) -> ExporterError | None:  # noqa: ARG002  # whatever it says, it began
        return None

    def removal(self, folder: str) -> str:
        return f"rm -r {shlex.quote(folder)}"


def connected(address: Address) -> Arm64:
    """The machine; there is one.

    Raises:
        Refused: ``bad-device`` for an address with more in it.
        Incomplete: ``emulator-absent`` where it was not made.
    """
    if address.host or address.python:
        raise Refused(
            "bad-device", f"{str(address)!a} is no device: there is one arm64 machine here", where=f"--on {address}",
            why="it is emulated on this very machine", next="--on arm64",
        )  # fmt: skip
    return Arm64(replace(address, python=str(emulation.starter())))
