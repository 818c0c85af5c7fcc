"""The exporter as its users have it: a command in a process of its own, with the fakes installed beside it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from exporter.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "tests" / "cli_fakes" / "site"
COMMAND = Path(sys.executable).with_name("exporter")
DATA = Path(os.environ.get("EXPORTER_DATA", ROOT.parent / "shared" / "data"))
CHECKPOINT, NOISY = DATA / "gtcrn" / "gtcrn_dns3.tar", DATA / "gtcrn" / "noisy.wav"
PATIENCE = 120.0


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object of ``--json``; anything beside it on stdout is an error."""
        return json.loads(self.out)

    def refused(self, code: str) -> str:
        """Asserts a refusal in four parts on stderr and nothing on stdout; returns it as one line."""
        return self.failed(code, 2)

    def failed(self, code: str, exit_code: int) -> str:
        assert self.code == exit_code, self
        assert self.out == "", self.out
        said = [line for line in self.err.splitlines() if line.strip() and not line.endswith(" ...")]
        lines = [line for line in said if not line.startswith("  about ")]  # a slow machine says how long it will take
        assert lines[0].startswith(f"error[{code}]: "), self.err
        assert [line.split()[0] for line in lines[1:]] == ["where", "why", "next"], self.err
        assert all(len(line.split()) > 1 for line in lines), self.err
        assert "Traceback" not in self.err
        return " ".join(self.err.split())


def environment(**changes: str | None) -> dict[str, str]:
    """This environment with the fakes and this tree on the path; a variable that is None is absent."""
    value = {k: v for k, v in os.environ.items() if not k.startswith(("FAKES_", "PYTEST_"))}
    value |= {"PYTHONPATH": f"{SITE}{os.pathsep}{ROOT}", "COLUMNS": "100", "PYTHONWARNINGS": "default"}
    return {k: v for k, v in {**value, **changes}.items() if v is not None}


def spawn(*arguments: object, command: object = COMMAND, cached: bool = False, **more: Any) -> subprocess.Popen[str]:
    """Starts the command in a process group of its own; ``cached``, it may take what others of this session made."""
    reuse = {"EXPORTER_CACHE_MB": None} if cached else {}
    env = environment(**{**reuse, **more.pop("env", {})})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    words = [str(command), *map(str, arguments)]
    return subprocess.Popen(words, env=env, text=True, start_new_session=True, **{**pipes, **more})


def run(*arguments: object, patience: float = PATIENCE, **more: Any) -> Ended:
    """Runs the command to its end."""
    return ended(spawn(*arguments, **more), patience)


@cache
def _server() -> subprocess.Popen[str]:
    words = [sys.executable, str(Path(__file__).with_name("served.py"))]
    pipe = subprocess.PIPE
    server = subprocess.Popen(words, env=environment(), text=True, stdin=pipe, stdout=pipe, bufsize=1)
    atexit.register(server.kill)
    return server


def quick(*arguments: object, cwd: Path) -> Ended:
    """Runs the command in a fork of a process that has it loaded: for the many that are refused at once."""
    server, files = _server(), {name: _place() / f"{os.getpid()}.{name}" for name in ("out", "err")}
    asked = {"arguments": [str(word) for word in arguments], "cwd": str(cwd)}
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(asked | {name: str(path) for name, path in files.items()}) + "\n")
    code = int(server.stdout.readline())
    return Ended(code, *(files[name].read_text() for name in ("out", "err")))


def ended(process: subprocess.Popen[str], patience: float = PATIENCE) -> Ended:
    """Waits for the end; a command that takes too long is killed with all its children."""
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, out, err)


def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Waits until something is so."""
    give_up = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def descendants(pid: int) -> set[int]:
    """All processes below one: children lead process groups of their own, so groups do not find them."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
    found: set[int] = set()
    while more := {p for p, above in parents.items() if above in found | {pid}} - found:
        found |= more
    return found


def contents(path: Path) -> dict[str, object]:
    """Everything below a folder: the bytes of files, the modes of folders, where links lead."""
    found: dict[str, object] = {}
    for entry in sorted(path.rglob("*")):
        name = str(entry.relative_to(path))
        found[name] = os.readlink(entry) if entry.is_symlink() else entry.read_bytes() if entry.is_file() else "folder"
    return found


def assert_whole(path: Path) -> Bundle:
    """A bundle with every file as declared, and nothing that does not belong to it."""
    bundle = Bundle.open(path)
    bundle.check()
    files = {name for name, value in contents(path).items() if value != "folder"}
    assert files - {"USE.md"} == {*bundle.manifest.files, "manifest.json"}
    return bundle


@cache
def _place() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="exporter-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _exported(model: str, targets: tuple[str, ...], options: tuple[str, ...]) -> tuple[Path, Ended]:
    path = _place() / f"{model}-{len(list(_place().iterdir()))}.bundle"
    result = None
    for target in targets:
        result = run(target, model, "-o", path, *options, cached=True)
        assert result.code == 0, result
    assert result is not None
    return path, result


def exported(model: str = "tiny", *targets: str, options: tuple[str, ...] = ("--no-profile",)) -> Path:
    """A bundle that is made once and shared: look at it, and copy it to change it."""
    return _exported(model, targets or ("fake-good",), options)[0]


def copied(folder: Path, model: str = "tiny", *targets: str) -> Path:
    """A copy of a shared bundle under ``folder``, as ``MODEL.bundle``."""
    return Path(shutil.copytree(exported(model, *targets), folder / f"{model}.bundle"))
