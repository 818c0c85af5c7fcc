"""Our end of the line to a device: one process that carries it, watched, so that nothing ever waits for ever."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, final

from exporter.devices import bootstrap as there
from exporter.devices import received, side
from exporter.devices.bootstrap import CHUNK, FULL, Ended, Frames
from exporter.devices.device import NO_PYTHON, Device
from exporter.errors import ExporterError, Incomplete, Refused, StageFailed

SILENCE_SECONDS = 60.0  # a device that works says so every few seconds
PULSE_SECONDS = 5.0
ENDING_SECONDS = 8.0  # for what runs there to end itself; the device then ends it
NOISE = 64 << 10  # what a login may print before anything of ours speaks
SAID = 16 << 10
PIP = "pip install "
OWN = "~/.exporter-device"  # the first place where an interpreter is looked for

Told = Callable[[Mapping[str, Any]], None]


class Lost(Exception):
    """The line broke, in the middle of whatever was said."""


@final
class Connection:
    """An open line. Use it as a context manager: leaving the block ends what runs there.

    Attributes:
        device: the device.
        hello: what it said of itself first.
    """

    def __init__(self, device: Device) -> None:
        self.device, self.hello = device, dict[str, Any]()
        self._process = device.start()
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._in, self._out = self._process.stdout.fileno(), self._process.stdin.fileno()
        os.set_blocking(self._out, False)
        self._err, self._reader = bytearray(), threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self._frames = Frames(self._read, self._write, received.json_of)
        self._quiet = threading.Event()

    # ---- beginning

    def open(self) -> None:
        """Starts our side there, and learns what the device is.

        Raises:
            ExporterError: it cannot be reached, lets nobody in, or lacks what everything needs.
            Lost: it broke off.
        """
        try:
            text = _bootstrap()
            self._write(f"{self.device.address.python}\n{len(text)}\n".encode() + text)
            self._frames.send("begin", side=side.digest())
            noise = 0
            while (line := self._frames.line(NOISE)) + b"\n" != there.MARK:
                noise += len(line) + 1
                if noise > NOISE:
                    raise Ended("it speaks, and not as ours")
            self.hello = self._answer("hello")
        except Ended as error:
            raise self._before_hello(error) from None
        received.checked(self.hello, {"python": str, "executable": str, "folder": str, "free": int, "side": bool,
                                      "missing": [str], "pip": bool, "venv": bool, "pid": int}, "hello")  # fmt: skip
        if not self.hello["side"]:
            self.send_all("side", side.packed())
        threading.Thread(target=self._pulse, daemon=True).start()

    @property
    def label(self) -> str:
        return self.device.address.label

    @property
    def install(self) -> str:
        """What ``pip install`` is there: where the Python takes no packages, an environment beside it that does."""
        python = received.said(self.hello["executable"])
        if self.hello["pip"]:
            return f"{python} -m {PIP}"
        # It holds what the system has, such as a runtime that came with the board.
        steps = [f"{python} -m venv --system-site-packages {OWN}", f"{OWN}/bin/python -m {PIP}"]
        return " && ".join(steps if self.hello["venv"] else ["sudo apt-get install python3-venv", *steps])

    @property
    def said(self) -> str:
        """The last lines on standard error, of ssh or of the device."""
        return received.last_lines(bytes(self._err))

    def require(self) -> None:
        """Refuses a device whose python lacks what our side there imports.

        Raises:
            Incomplete: ``device-unprepared``, with the line that installs it.
        """
        if self.hello["missing"]:
            again = f"; then --on '{self.device.address}?python={OWN}/bin/python'"
            named = self.device.address.python and not self.hello["pip"]
            raise Incomplete(
                "device-unprepared", f"{self.label} lacks {', '.join(self.hello['missing'])}",
                where=f"python {received.said(self.hello['executable'])} on {self.label}",
                why="what runs there is our own package, which is copied; what it imports is the device's own",
                next=f"there: {self.install}{quoted(self.hello['missing'])}{again if named else ''}",
            )  # fmt: skip

    def _before_hello(self, why: Ended) -> ExporterError:
        """What a line that broke off before anything of ours spoke means."""
        status = self._end()
        refused = self.device.refusal(status, self.said)
        if refused is not None:
            return refused
        where = f"--on {self.device.address}"
        if status == NO_PYTHON:
            wanted, another = self.device.address.python, f"--on '{self.device.address}?python=/PATH/TO/python3'"
            return Incomplete(
                "device-unprepared",
                f"{self.label} has no {wanted or 'python3'} of 3.10 or newer: {self.said or 'it has none at all'}",
                where=where, why="our side there is written in Python, and needs 3.10",
                next=f"there: apt-get install python3, or name another: {another}",
            )  # fmt: skip
        return received.bad_answer(f"{why}; exit status {status}; {self.said or 'no word of it on standard error'}")

    # ---- talking

    def ask(self, kind: str, told: Told | None = None, data: bytes = b"", **value: Any) -> dict[str, Any]:
        """Asks for something and waits for the answer; ``told`` is called with what comes before it.

        Raises:
            ExporterError: what came up there, as it was.
            Lost: the line broke.
        """
        self.tell(kind, data, **value)
        return self.await_answer(told)

    def await_answer(self, told: Told | None = None) -> dict[str, Any]:
        """The answer to what was said; raises as :meth:`ask` does."""
        answer: dict[str, Any] = self._guarded(lambda: self._answer("answer", told))
        return answer

    def tell(self, kind: str, data: bytes = b"", **value: Any) -> None:
        """Says something that has no answer.

        Raises:
            ExporterError: what came up there meanwhile.
            Lost: the line broke.
        """
        try:
            self._frames.send(kind, data, **value)
        except Ended as ended:
            # It may have said why, and gone: a full disk does not wait for the rest.
            self._guarded(lambda: self._answer("answer"))
            raise Lost(self.said or str(ended)) from None

    def send_all(self, name: str, data: bytes) -> None:
        """Sends bytes of any length as messages."""
        for start in range(0, len(data), CHUNK):
            self.tell("data", data[start : start + CHUNK])
        self.tell("end", name=name)

    def pieces(self, told: Mapping[str, Any]) -> Iterator[bytes]:
        """The bytes that follow an answer, piece by piece, no more of them than it said."""
        left = int(told["bytes"])
        while True:
            value, data = self._guarded(self._frames.receive)
            if value["kind"] == "end":
                break
            left -= len(data)
            if value["kind"] != "data" or left < 0:
                raise received.bad_answer("more bytes than it said")
            yield data
        if left:
            raise received.bad_answer(f"{left} bytes fewer than it said")

    def _guarded(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except Ended as ended:
            raise Lost(self.said or str(ended)) from None

    def _answer(self, kind: str, told: Told | None = None) -> dict[str, Any]:
        while True:
            value, _ = self._frames.receive()
            if value["kind"] == kind:
                return value
            if value["kind"] == "error":
                raise received.error_of(value, self.label)
            if value["kind"] == "disk":
                raise self._disk(value)
            if value["kind"] == "progress" and told is not None:
                told(value)
            elif value["kind"] not in ("pulse", "progress"):
                raise received.bad_answer(f"{value['kind'][:40]!a} where {kind!a} was asked for")

    def _disk(self, value: Mapping[str, Any]) -> ExporterError:
        what, folder = (received.said(str(value.get(name))) for name in ("what", "folder"))
        where, remedy = f"{folder} on {self.label}", "set XDG_CACHE_HOME there to another folder"
        why = "what is copied to a device is kept there by digest; the bundle here is as it was"
        if value.get("errno") in FULL:
            what = f"{what} on {self.label}: {value.get('free')!a} bytes free"
            return StageFailed("disk-full", what, where=where, why=why, next=f"make room there, or {remedy}")
        return Refused("unwritable-folder", f"{folder} cannot be written: {what}", where=where, why=why, next=remedy)

    # ---- the process

    def _read(self, most: int) -> bytes:
        ready, _, _ = select.select([self._in], [], [], SILENCE_SECONDS)
        if not ready:
            raise Ended(f"nothing came for {SILENCE_SECONDS:.0f} s")
        return os.read(self._in, most)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([], [self._out], [], SILENCE_SECONDS)
            if not ready:
                raise Ended(f"nothing was taken for {SILENCE_SECONDS:.0f} s")
            try:
                view = view[os.write(self._out, view) :]
            except OSError:
                raise Ended("it takes nothing any more") from None

    def _listen(self) -> None:
        assert self._process.stderr is not None
        while part := self._process.stderr.read1(4096):  # type: ignore[attr-defined]
            self._err += part
            del self._err[:-SAID]

    def _pulse(self) -> None:
        """Tells the device that we are still here: where no word comes through, it ends what runs."""
        while not self._quiet.wait(PULSE_SECONDS):
            with suppress(Ended, ValueError):
                self._frames.send("pulse")

    def close(self) -> None:
        """Ends what runs there, and the line."""
        with suppress(Ended, ValueError):
            if self._process.poll() is None and not self._quiet.is_set():
                self._frames.send("bye")
        self._end()

    def _end(self) -> int:
        """Closes our end, which the device takes as the word to stop; waits until it has."""
        self._quiet.set()
        assert self._process.stdin and self._process.stdout and self._process.stderr
        with suppress(OSError):
            self._process.stdin.close()
        give_up = time.monotonic() + ENDING_SECONDS
        while self._process.poll() is None and time.monotonic() < give_up:
            ready, _, _ = select.select([self._in], [], [], 0.05)
            if ready and not os.read(self._in, CHUNK):
                time.sleep(0.01)
        if self._process.poll() is None:
            self._process.kill()
        status = self._process.wait()
        self._reader.join(1.0)
        with suppress(OSError):
            self._process.stdout.close()
            if not self._reader.is_alive():
                self._process.stderr.close()
        return status

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self.close()


def quoted(needs: Sequence[str]) -> str:
    """Requirements, as a shell takes them."""
    return " ".join(f"'{received.said(need)}'" for need in needs)


def _bootstrap() -> bytes:
    return Path(there.__file__).read_bytes()
