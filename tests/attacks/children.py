"""Functions that tests run in children: each one misbehaves in one way."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from exporter.errors import Incomplete, NotProven, Refused
from exporter.isolate import Channel, Limits, call

HERE = "tests.attacks.children"


def echo(request: dict[str, Any], channel: Channel) -> Any:
    return request


def identity(request: dict[str, Any], channel: Channel) -> Any:
    return {"path": sys.path, "cwd": os.getcwd(), "file": sys.modules["exporter.isolate"].__file__}


def variable(request: dict[str, Any], channel: Channel) -> Any:
    return os.environ.get(request["name"])


def counted(request: dict[str, Any], channel: Channel) -> Any:
    for number in range(request["count"]):
        channel.send({"number": number})
    return "done"


def talk(request: dict[str, Any], channel: Channel) -> Any:
    total = 0
    while (number := channel.receive()) is not None:
        total += number
        channel.send(total)
    return total


def noise(request: dict[str, Any], channel: Channel) -> Any:
    print('{"value": "forged"}')
    sys.stdout.write("half a line")
    print("to the error stream", file=sys.stderr)
    os.write(1, b'{"value": "forged below Python"}\n')
    subprocess.run([sys.executable, "-c", "print('a grandchild')"], check=True)
    return "genuine"


def large(request: dict[str, Any], channel: Channel) -> Any:
    return "x" * request["size"]


def refuse(request: dict[str, Any], channel: Channel) -> Any:
    kind = {"Refused": Refused, "NotProven": NotProven, "Incomplete": Incomplete}[request["kind"]]
    raise kind("some-code", "what", where="where", why="why", next="next")


def raise_value_error(request: dict[str, Any], channel: Channel) -> Any:
    raise ValueError("the value 42 is wrong")


def raise_memory_error(request: dict[str, Any], channel: Channel) -> Any:
    return bytearray(1 << 60)


def raise_allocator_error(request: dict[str, Any], channel: Channel) -> Any:
    raise RuntimeError("DefaultAllocator: can't allocate memory: you tried to allocate 1 bytes")


def not_json(request: dict[str, Any], channel: Channel) -> Any:
    return {1, 2}


def leave_politely(request: dict[str, Any], channel: Channel) -> Any:
    sys.exit(0)


def segfault(request: dict[str, Any], channel: Channel) -> Any:
    print("\x1b[31mabout to fall", flush=True)
    ctypes.string_at(0)


def abort(request: dict[str, Any], channel: Channel) -> Any:
    os.abort()


def vanish(request: dict[str, Any], channel: Channel) -> Any:
    os._exit(request["code"])


def sent_then_vanish(request: dict[str, Any], channel: Channel) -> Any:
    channel.write({"value": "too early"})
    os._exit(3)


def kill_self(request: dict[str, Any], channel: Channel) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def garble(request: dict[str, Any], channel: Channel) -> Any:
    os.write(channel._out.fileno(), b"\xff no message\n")
    time.sleep(60)


def hang(request: dict[str, Any], channel: Channel) -> Any:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    channel.send({"pid": os.getpid(), "grandchild": child.pid})
    time.sleep(60)


def limits_inside(request: dict[str, Any], channel: Channel) -> Any:
    opened = [int(name) for name in os.listdir("/proc/self/fd")]
    inherited = []
    for number in opened:
        try:
            if number > 2 and os.get_inheritable(number):
                inherited.append(number)
        except OSError:  # the descriptor of the listing itself
            pass
    return {"core": resource.getrlimit(resource.RLIMIT_CORE), "inherited": inherited}


def leave_a_grandchild(request: dict[str, Any], channel: Channel) -> Any:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    return os.posix_spawn(sys.executable, command, os.environ)


def hog(request: dict[str, Any], channel: Channel) -> Any:
    held = []
    while True:
        held.append(b"x" * (16 << 20))


def hog_in_a_grandchild(request: dict[str, Any], channel: Channel) -> Any:
    hungry = "import time; held = b'x' * (300 << 20); time.sleep(60)"
    subprocess.Popen([sys.executable, "-c", hungry])
    time.sleep(60)


def peak(request: dict[str, Any], channel: Channel) -> Any:
    held = b"x" * request["bytes"]
    return len(held)


def tick(request: dict[str, Any], channel: Channel) -> Any:
    """Says the time until it is told to stop."""
    stop = threading.Event()

    def say() -> None:
        while not stop.wait(0.01):
            channel.send(time.monotonic())

    thread = threading.Thread(target=say)
    thread.start()
    while channel.receive() is not None:
        pass
    stop.set()
    thread.join()
    return "stopped"


def parent_of_a_hang(log: str) -> None:
    """Run as a process of its own: starts a child that hangs, and says its process id."""
    from pathlib import Path

    def say(event: Any) -> None:
        print(event["pid"], flush=True)

    call(f"{HERE}:hang", {}, limits=Limits(60), log=Path(log), stage="hang", on_event=say)
