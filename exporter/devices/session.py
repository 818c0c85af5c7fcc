"""One command on one device: the device held, the bundle there, the answer here."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from getpass import getuser
from pathlib import Path
from typing import Any

from exporter.devices import received
from exporter.devices.bootstrap import CHUNK
from exporter.devices.connection import PIP, Connection, Lost
from exporter.devices.device import Device
from exporter.devices.shipping import Shipment, sizes
from exporter.errors import ExporterError, StageFailed
from exporter.stages import Progress

TRIES = 4
PAUSES = (1.0, 3.0, 9.0)
SPARE_BYTES = 64 << 20  # what a device should have left when all is copied
COPY = "copy"
SCALAR = (str, int, float)


class Session:
    """A device that is held, with what the command needs on it.

    Attributes:
        label: what its lines are marked with.
    """

    def __init__(self, line: Connection, progress: Progress) -> None:
        self.label, self.path = line.label, ""
        self._line, self._progress = line, progress
        self._names: dict[str, str] = {PIP: line.install}

    # ---- before

    def hold(self, what: str) -> None:
        """Holds the device, after whoever has it."""
        by = f"{_user()}@{socket.gethostname()}"
        self._asked("lock", None, by=by, what=what)

    def ship(self, shipment: Shipment, here: Path) -> None:
        """Copies what the device lacks of a bundle.

        Raises:
            StageFailed: ``disk-full`` before anything is copied.
        """
        encoded, wanted = shipment.encoded, list(shipment.files)
        first, rest = encoded[:CHUNK], encoded[CHUNK:]
        self._line.tell("lacking", first, name=shipment.name, wanted=wanted, bytes=len(encoded))
        for start in range(0, len(rest), CHUNK):
            self._line.tell("data", rest[start : start + CHUNK])
        answer = self._answered()
        received.checked(answer, {"lacking": dict, "free": int, "path": str})
        lacking, self.path = answer["lacking"], answer["path"]
        self._names = {self.path: str(here), **self._names}
        self._refuse_little_room(lacking, shipment, answer["free"])
        for attempt in ("first", "again"):
            self._copy(lacking, shipment)
            damaged = self._asked("finish", None, files=list(lacking))["damaged"]
            if not damaged:
                return
            lacking = {str(name): 0 for name in received.checked(damaged, [str])}
            self._progress(COPY, {"what": f"{len(lacking)} files came damaged ({attempt}) and are copied whole"})
        raise received.bad_answer(f"{next(iter(lacking))} comes damaged whenever it is copied")

    def _copy(self, lacking: Mapping[str, Any], shipment: Shipment) -> None:
        done, of = 0, sizes({n: o for n, o in lacking.items() if isinstance(o, int)}, shipment)
        for name, offset in lacking.items():
            if name not in shipment.files or not isinstance(offset, int) or not 0 <= offset <= shipment.bytes_of(name):
                raise received.bad_answer(f"it lacks {name[:80]!a} from {offset!r} on, which was never offered")
            with shipment.path_of(name).open("rb") as file:
                file.seek(offset)
                while part := file.read(CHUNK):
                    self._line.tell("put", part, file=name)
                    done += len(part)
                    self._progress(COPY, {"what": f"{name} to {self.label}, MB", "done": done >> 20, "of": of >> 20})

    def _refuse_little_room(self, lacking: Mapping[str, Any], shipment: Shipment, free: int) -> None:
        needed = sizes({n: o for n, o in lacking.items() if n in shipment.files and isinstance(o, int)}, shipment)
        if needed and needed + SPARE_BYTES > free:
            raise StageFailed(
                "disk-full", f"no space left: {needed} bytes needed, and {SPARE_BYTES} to spare; {free} bytes free",
                where=f"{self._line.hello['folder']} on {self.label}",
                why="nothing was copied; the bundle here is as it was",
                next="make room there, or set XDG_CACHE_HOME there to another disk",
            )  # fmt: skip

    # ---- the work

    def lend(self, path: Path, folder: str, name: str) -> None:
        """Copies a file of the user's own there, for this run alone."""
        self._line.tell("input", folder=folder, name=name)
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                self._line.tell("data", part)
        self._line.tell("end")
        there = self._answered()["path"]
        self._names[received.checked(there, str)] = str(path)

    def work(self, command: str, request: Mapping[str, Any]) -> Any:
        """Runs a command there; its object."""
        return self._asked("work", self._told, command=command, request=dict(request))["value"]

    def moment(self, everything: bool = False) -> dict[str, Any]:
        """How the device fares; with all that it is."""
        answer = received.checked(self._asked("facts", None, all=everything), {"facts": dict, "moment": dict})
        return {**answer["facts"], "moment": answer["moment"]}

    def fetch(self, to: Path, most: int, **what: str) -> None:
        """Brings a file back, into one that is named here."""
        told = self._asked("get", None, **what)
        if not 0 <= received.checked(told, {"bytes": int})["bytes"] <= most:
            raise received.bad_answer(f"a file of {told['bytes']} bytes where at most {most} were to come")
        with to.open("wb") as file:
            for piece in self._line.pieces(told):
                file.write(piece)

    def _told(self, value: Mapping[str, Any]) -> None:
        """Passes on what happens there."""
        event = value.get("event")
        event = event if isinstance(event, dict) else {}
        known = {k: received.said(v) if isinstance(v, str) else v for k, v in event.items() if isinstance(v, SCALAR)}
        if {"done", "of"} & known.keys() and not all(isinstance(known.get(k), int) for k in ("done", "of")):
            return
        stage = received.said(str(value.get("stage")))
        if stage == "wait":
            known = {"what": f"for {self.label}: {holder(event.get('owner'))}"}
        else:
            stage = f"{stage} on {self.label}"
        self._progress(stage, known)

    def _asked(self, kind: str, told: Any, **value: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._renamed(self._line.ask(kind, told or self._told, **value))
        except ExporterError as error:
            for part in ("what", "where", "why", "next"):
                setattr(error, part, self._renamed(getattr(error, part)))
            raise
        return answer

    def _answered(self) -> dict[str, Any]:
        return self._line.await_answer(self._told)

    def _renamed(self, value: Any) -> Any:
        """What a device says, with our names for what it has from us: the same words as if it had run here."""
        if isinstance(value, str):
            for there, here in self._names.items():
                value = value.replace(there, here)
            return value
        if isinstance(value, dict):
            return {key: self._renamed(item) for key, item in value.items()}
        return [self._renamed(item) for item in value] if isinstance(value, list) else value


@contextmanager
def session(device: Device, shipment: Shipment, here: Path, what: str, progress: Progress) -> Iterator[Session]:
    """A device, held, with a shipment on it. A line that breaks while copying is taken up again from where it broke.

    Raises:
        ExporterError: the device cannot be reached, or refuses.
        StageFailed: ``connection-lost``, which says what remains there.
    """
    with received.spoken_by(device.address), ExitStack() as stack:
        line, folder, began = None, "", False
        for attempt in range(TRIES):
            line = None
            try:
                line = stack.enter_context(Connection(device))
                progress("connect", {"what": device.address.label})
                line.open()
                line.require()
                folder, began = line.hello["folder"], True
                held = Session(line, progress)
                held.hold(what)
                held.ship(shipment, here)
                break
            except (Lost, ExporterError) as error:
                broke = isinstance(error, Lost) or (began and getattr(error, "code", "") == "device-unreachable")
                if line is not None:
                    line.close()
                if not broke:
                    raise
                if attempt == TRIES - 1:
                    raise lost(device, folder, error, "copying") from None
                progress("connect", {"what": f"{device.address.label} again, in {PAUSES[attempt]:.0f} s"})
                time.sleep(PAUSES[attempt])
        try:
            yield held
        except Lost as error:
            raise lost(device, folder, error, "working") from None


def lost(device: Device, folder: str, error: Exception, doing: str) -> StageFailed:
    label = device.address.label
    how = received.said(getattr(error, "what", "") or str(error)) or "it ended without a word"
    remains = f"what was copied stays in {received.said(folder)}" if folder else "nothing of ours is there"
    remove = f", or remove what is there: {device.removal(folder)}" if folder else ""
    return StageFailed(
        "connection-lost", f"the line to {label} broke while {doing}: {how}", where=f"--on {device.address}",
        why=f"whatever runs there ends when nobody listens; {remains}, and the bundle here is as it was",
        next=f"the same command again goes on from there{remove}",
    )  # fmt: skip


def holder(owner: object) -> str:
    """Who has a device, in words."""
    known = owner if isinstance(owner, dict) else {}
    seconds = known.get("seconds")
    age = f" for {seconds} s" if isinstance(seconds, int) else ""
    return received.said(f"{known.get('by', 'somebody')} has it{age}: {known.get('what', 'unknown')}")


def _user() -> str:
    with suppress(KeyError, OSError):
        return getuser()
    return str(os.getuid())
