"""Our side on a device: takes what is copied, works, and is gone as soon as nobody listens."""

from __future__ import annotations

import errno
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from exporter.devices import label, lock, work
from exporter.devices.bootstrap import CHUNK, FULL, Ended, Frames, folder, missing
from exporter.devices.store import Store
from exporter.errors import KINDS, ExporterError
from exporter.isolate import kill_all

SILENCE_SECONDS = 60.0  # the other side says every few seconds that it is there
PULSE_SECONDS = 5.0
ENDING_SECONDS = 5.0
LEAVING_SECONDS = 1.0
TELLING_SECONDS = 2.0
FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)  # of our own folder; elsewhere they say something else

Message = tuple[dict[str, Any], bytes]


def serve(frames: Frames) -> None:
    """Does what is asked for until the other side says goodbye, or is gone. Never returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    desk = Desk(frames)
    try:
        with ExitStack() as stack:
            desk.stack = stack
            while desk.one():
                pass
        status = 0
    except (KeyboardInterrupt, Ended, BrokenPipeError):
        status = 1
    except ExporterError as error:
        status = desk.failed(error)
    except OSError as error:
        status = desk.disk(error) if desk.lacks_room(error) else desk.broken(error)
    except Exception as error:
        status = desk.broken(error)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(Exception):
        kill_all()
    os._exit(status)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class Desk:
    """Where messages come in and answers go out.

    Attributes:
        stack: what is given back at the end: the lock, the folder of inputs.
    """

    stack: ExitStack

    def __init__(self, frames: Frames) -> None:
        self.frames, self.store = frames, Store(folder())
        self.inputs: Path | None = None
        self._asked: queue.Queue[Message] = queue.Queue(maxsize=8)
        for name, run in (("listen", self._listen), ("pulse", self._pulse)):
            threading.Thread(target=run, name=name, daemon=True).start()

    # ---- the line

    def _listen(self) -> None:
        try:
            while True:
                message = self.frames.receive()
                if message[0]["kind"] == "bye":
                    return self._leave(message)
                if message[0]["kind"] != "pulse":
                    self._asked.put(message)
        except Exception:  # whatever it is: nobody is there whom it could be told
            self._gone()

    def _leave(self, goodbye: Message) -> None:
        """Ends an idle desk in order; one that works for somebody who has gone is ended."""
        with suppress(queue.Full):
            self._asked.put(goodbye, timeout=LEAVING_SECONDS)
        time.sleep(LEAVING_SECONDS)  # an idle desk is gone by then
        self._gone()

    def _pulse(self) -> None:
        while True:
            time.sleep(PULSE_SECONDS)
            if time.monotonic() - self.frames.heard > SILENCE_SECONDS:
                self._gone()
            with suppress(OSError):
                self.frames.send("pulse")

    def _gone(self) -> None:
        """Ends what runs here: politely, and then not."""
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ENDING_SECONDS)
        with suppress(Exception):
            kill_all()
        os._exit(1)

    # ---- the work

    def one(self) -> bool:
        """Answers one message; whether there may be another."""
        asked, data = self._asked.get()
        kind = asked["kind"]
        if kind == "bye":
            return False
        if kind == "put":
            self.store.put(asked["file"], data)
        else:
            answers = {
                "facts": self._facts, "doctor": self._doctor, "lock": self._lock, "lacking": self._lacking,
                "finish": self._finish, "input": self._input, "work": self._work, "get": self._get,
            }  # fmt: skip
            answers[kind](asked, data)
        return True

    def _answer(self, **value: Any) -> None:
        self.frames.send("answer", **value)

    def _progress(self, stage: str, event: Mapping[str, Any]) -> None:
        self.frames.send("progress", stage=stage, event=dict(event))

    def _facts(self, asked: Mapping[str, Any], _: bytes) -> None:
        self._answer(facts=label.facts() if asked["all"] else {}, moment=label.moment())

    def _doctor(self, asked: Mapping[str, Any], _: bytes) -> None:
        value = {} if missing() else work.doctor(self.store.folder)
        self._answer(
            value=value, lacking=work.lacking(asked["runtimes"]),
            facts=label.facts(), moment=label.moment(), owner=lock.owner(),
        )  # fmt: skip

    def _lock(self, asked: Mapping[str, Any], _: bytes) -> None:
        told = [0.0]

        def waiting(owner: Mapping[str, Any]) -> None:
            if time.monotonic() - told[0] > TELLING_SECONDS:
                told[0] = time.monotonic()
                self.frames.send("progress", stage="wait", event={"what": "for the device", "owner": owner})

        self.stack.enter_context(lock.held({"by": asked["by"], "what": asked["what"]}, waiting))
        self.store.expire()
        self._answer()

    def _lacking(self, asked: Mapping[str, Any], data: bytes) -> None:
        manifest = data
        while len(manifest) < asked["bytes"]:
            manifest += self._asked.get()[1]
        lacking = self.store.lacking(asked["name"], manifest, asked["wanted"])
        self._answer(lacking=lacking, free=shutil.disk_usage(self.store.folder).free, path=str(self.store.bundle))

    def _finish(self, asked: Mapping[str, Any], _: bytes) -> None:
        self._answer(damaged=self.store.finish(asked["files"]))

    def _input(self, asked: Mapping[str, Any], _: bytes) -> None:
        """Takes a file of the user's own, for this run alone."""
        place = self._own_folder() / str(asked["folder"])
        place.mkdir(exist_ok=True)
        path = place / Path(asked["name"]).name
        with path.open("wb") as file:
            while True:
                told, data = self._asked.get()
                if told["kind"] == "end":
                    break
                file.write(data)
        self._answer(path=str(path))

    def _own_folder(self) -> Path:
        if self.inputs is None:
            for dead in self.store.folder.glob("inputs-*"):  # the lock is ours: nobody else works here
                shutil.rmtree(dead, ignore_errors=True)
            self.inputs = self.store.folder / f"inputs-{os.getpid()}"
            self.inputs.mkdir(mode=0o700)
            self.stack.callback(shutil.rmtree, self.inputs, ignore_errors=True)
        return self.inputs

    def _work(self, asked: Mapping[str, Any], _: bytes) -> None:
        value = work.done(asked["command"], self.store.bundle, self._own_folder(), asked["request"], self._progress)
        self._answer(value=value)

    def _get(self, asked: Mapping[str, Any], _: bytes) -> None:
        """Gives back a file that the work left: of the bundle by its name, or the output."""
        path = self._own_folder() / asked["output"] if asked.get("output") else self.store.bundle / asked["file"]
        self._answer(bytes=path.stat().st_size)
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                self.frames.send("data", part)
        self.frames.send("end")

    # ---- when it does not work

    def failed(self, error: ExporterError) -> int:
        kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in KINDS), "Defect")
        parts = {name: part for name, part in error.as_json().items() if name != "schema"}
        return self._last("error", **parts, error=kind)

    def lacks_room(self, error: OSError) -> bool:
        """Whether it is about room on a disk, or about the folder that what is copied lies in."""
        ours = str(error.filename or "").startswith(str(self.store.folder))
        return error.errno in FULL or (error.errno in FOLDER and ours)

    def disk(self, error: OSError) -> int:
        place = self.store.folder
        while not place.exists():
            place = place.parent
        what = error.strerror or str(error)
        free = shutil.disk_usage(place).free
        return self._last("disk", errno=error.errno, what=what, folder=str(self.store.folder), free=free)

    def broken(self, error: Exception) -> int:
        traceback.print_exc(file=sys.stderr)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return self._last(
            "error", error="Defect", code="internal", what=f"{type(error).__name__}: {error}",
            where=f"{Path(frame.filename).name}:{frame.lineno}", why="this is a mistake of exporter, not yours",
            next="report it",
        )  # fmt: skip

    def _last(self, kind: str, **value: Any) -> int:
        with suppress(OSError, Ended):
            self.frames.send(kind, **value)
        return 1
