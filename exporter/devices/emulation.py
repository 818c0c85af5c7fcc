"""An arm64 machine on this one: Debian's Python and the runtimes' own aarch64 wheels, run by qemu's user emulation.

``python -m exporter.devices.emulation`` makes it, without root: packages come through this system's own apt, wheels
through its pip. The kernels that run are those of a board; the clock is that of nothing.

What is in the folder::

    root/       an arm64 Debian, unpacked and not installed: libraries and Python; proc/cpuinfo says which core it is
    site/       the wheels
    python3     what everything is started with: qemu, given the two
    made.json   which versions, and which of the wheels do not exist for arm64; the last to be written
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from exporter import folders, registry
from exporter.errors import ExporterError, Incomplete, StageFailed

QEMU = ("qemu-aarch64-static", "qemu-aarch64")
OLDEST = 10  # our side needs Python 3.10
SOURCE = "deb [arch=arm64] MIRROR CODENAME main universe"
DEBIAN = ("python3-minimal", "libpython3-stdlib", "libgomp1", "libstdc++6")
# The core of a Raspberry Pi 5 and of many phones: products of eight bits and arithmetic in fp16, neither SVE nor bf16.
CORE, IMPLEMENTER, PART = "cortex-a76", 0x41, 0xD0B
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
# glibc's versions that wheels are built against, up to Debian 12's.
PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)), "manylinux2014_aarch64")
# Its own place is found by itself, so that the folder can be moved; a child is started as itself, through qemu again.
STARTER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export PYTHONPATH="$here/site" QEMU_CPU={core}
exec {qemu} -0 "$here/python3" -L "$here/root" "$here/root/usr/bin/python{python}" "$@"
"""
MADE = "made.json"
Told = Callable[[str], None]


def place() -> Path:
    """Where the machine lies: ``EXPORTER_ARM64``, or the user's cache."""
    return Path(os.environ.get("EXPORTER_ARM64") or folders.cache() / "arm64")


def starter() -> Path:
    """The Python of a machine that was made.

    Raises:
        Incomplete: ``emulator-absent``.
    """
    made = place()
    if not (made / MADE).is_file():
        raise _absent(f"there is no arm64 machine at {made}", "python -m exporter.devices.emulation")
    _qemu()
    return made / "python3"


def versions() -> dict[str, str]:
    """What a machine that was made consists of, by name."""
    found: dict[str, str] = json.loads((place() / MADE).read_text(encoding="utf-8"))
    return found


def make(told: Told) -> Path:
    """Makes the machine, or makes it anew; the old one stays until the new one runs.

    Args:
        told: what happens, in a line.

    Raises:
        Incomplete: ``emulator-absent`` where a tool is missing.
        StageFailed: ``emulator-failed`` where a tool refuses.
    """
    qemu, to = _qemu(), place()
    for tool, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if shutil.which(tool) is None:
            raise _absent(f"there is no {tool} here", f"a system with {package}, such as Debian or Ubuntu")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".arm64-") as work:
        new = Path(work) / "machine"
        new.mkdir()
        told("Debian's packages for arm64")
        _debian(new / "root", Path(work) / "apt")
        _write_cpuinfo(new / "root")
        python = _python(new / "root")
        _write_starter(new / "python3", qemu, python)
        missing = _wheels(new / "site", python, told)
        told("bytecode")
        _compile(new, python)
        told("a first run")
        ran = _run([str(new / "python3"), "-c", "import numpy, platform; print(platform.machine(), numpy.__version__)"])
        if not ran.startswith("aarch64"):
            raise _failed(f"the machine says it is {ran.strip()[:80]!r}")
        known = {"qemu": _run([qemu, "--version"]).split("\n")[0], "core": CORE, **_wanted(), **missing}
        (new / MADE).write_text(json.dumps(known, indent=1), encoding="utf-8")
        old = Path(work) / "old"
        if to.exists():
            to.rename(old)
        new.rename(to)
    return to


def _debian(root: Path, state: Path) -> None:
    """Packages for arm64 with all they need, by this system's sources and with nothing of its state."""
    for folder in (root, state / "lists/partial", state / "cache/archives/partial"):
        folder.mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "Dir::State": state, "Dir::State::status": state / "status", "Dir::Cache": state / "cache",
        "APT::Architecture": "arm64", "APT::Architectures::": "arm64", "Debug::NoLocking": "1",
        "APT::Install-Recommends": "false", "APT::Sandbox::User": "root",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    apt = ["apt-get", "-q", "-y", *options]
    _run([*apt, "update"])
    if not _run(["apt-cache", *options, "policy", DEBIAN[0]]).strip():  # Ubuntu's mirrors for x86 hold nothing else
        remedy = f"in /etc/apt/sources.list.d a line '{SOURCE}'; Ubuntu keeps arm64 on its mirrors of ports"
        raise _absent(f"the package sources of this system hold no {DEBIAN[0]} for arm64", remedy)
    _run([*apt, "--download-only", "install", *DEBIAN])
    for package in sorted((state / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)])
    if not (root / "lib").exists():  # newer packages leave that link to one that is installed
        (root / "lib").symlink_to("usr/lib")


def _python(root: Path) -> str:
    """The version of the Python that came, such as ``3.11``: it is the system's that lends its sources."""
    link = root / "usr/bin/python3"
    name = link.readlink().name if link.is_symlink() else "no python3"
    found = re.fullmatch(r"python(3\.(\d+))", name)
    if found is None or int(found[2]) < OLDEST:
        raise _failed(f"what came for arm64 is {name}, and our side needs Python 3.{OLDEST}")
    return found[1]


def _write_cpuinfo(root: Path) -> None:
    """What ``/proc/cpuinfo`` says there: qemu shows the host's, by which libraries would choose the wrong kernels."""
    (root / "proc").mkdir(exist_ok=True)
    core = {
        "BogoMIPS": "108.00", "Features": FEATURES, "CPU implementer": f"{IMPLEMENTER:#04x}", "CPU architecture": "8",
        "CPU variant": "0x4", "CPU part": f"{PART:#05x}", "CPU revision": "1",
    }  # fmt: skip
    cores = [{"processor": str(number), **core} for number in range(os.cpu_count() or 1)]
    lines = ("".join(f"{name}\t: {value}\n" for name, value in one.items()) for one in cores)
    (root / "proc/cpuinfo").write_text("\n".join(lines) + "\n", encoding="ascii")


def _write_starter(path: Path, qemu: str, python: str) -> None:
    path.write_text(STARTER.format(core=CORE, qemu=qemu, python=python), encoding="ascii")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _wheels(site: Path, python: str, told: Told) -> dict[str, str]:
    """What our side imports, then each runtime; gives those that have no wheel for arm64, with the last line of why."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade", "-t", str(site),
           "--only-binary=:all:", "--python-version", python, *platforms]  # fmt: skip
    told("wheels of our own side")
    pinned = _wanted()
    _run([*pip, *(f"{name}=={pinned[name]}" for name in requirements(""))])
    missing = {}
    for extra in runtimes():
        names = requirements(extra)
        told(f"wheels of {', '.join(names)}")
        try:
            _run([*pip, *(f"{name}=={pinned[name]}" for name in {**dict.fromkeys(names), "numpy": None})])
        except StageFailed as error:
            missing.update(dict.fromkeys(names, f"no wheel for arm64: {error.what[-200:]}"))
    return missing


def _compile(machine: Path, python: str) -> None:
    """Bytecode of Python's own library and of the wheels: made anew at each start it takes longer than a verdict."""
    # Bytecode is the same on every processor, and this one makes it faster.
    here = ".".join(map(str, sys.version_info[:2])) == python
    program, root = sys.executable if here else str(machine / "python3"), machine / "root"
    library = root / "usr/lib" / f"python{python}"
    _run([program, "-m", "compileall", "-q", "-s", str(root), "-p", "/", str(library), str(machine / "site")])


def runtimes() -> list[str]:
    """The extras of the targets that compute on a processor and are installed here; a reference is no runtime."""
    targets = [registry.target(name) for name in registry.target_names()]
    extras = [t.extra for t in targets if t.device == "cpu" and t.available().present]
    return [extra for extra in extras if extra and extra != "trace"]


def requirements(extra: str) -> list[str]:
    """The distributions that our own metadata asks for, of one extra; of none where it is empty."""
    found = []
    for line in requires("exporter") or ():
        name, condition = re.match(r"[A-Za-z0-9._-]+", line), line.partition(";")[2]
        if name and (f'"{extra}"' in condition or f"'{extra}'" in condition if extra else "extra" not in condition):
            found.append(name[0])
    return found


def _wanted() -> dict[str, str]:
    """The versions that are installed here, which are those the machine gets: one runtime, two processors."""
    found = {}
    for name in [name for extra in ("", *runtimes()) for name in requirements(extra)]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _qemu() -> str:
    found = next((path for name in QEMU if (path := shutil.which(name))), None)
    if found is None:
        raise _absent("there is no qemu-aarch64 here", "apt-get install qemu-user-static, or qemu-user")
    return found


def _run(words: Sequence[str]) -> str:
    """What a tool prints.

    Raises:
        StageFailed: ``emulator-failed``, with its last lines.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-3:]
        raise _failed(f"{Path(words[0]).name} ended with {done.returncode}: {' | '.join(last)}")
    return done.stdout


def _absent(what: str, remedy: str) -> Incomplete:
    return Incomplete(
        "emulator-absent", what, where="--on arm64",
        why="arm64's own kernels run under qemu, from Debian's Python and the runtimes' wheels: verdicts, no timings",
        next=remedy,
    )  # fmt: skip


def _failed(what: str) -> StageFailed:
    return StageFailed(
        "emulator-failed", what, where="python -m exporter.devices.emulation",
        why="the machine is made of this system's own packages and wheels; nothing that was there has changed",
        next="the line above, by hand: it says what is wrong",
    )  # fmt: skip


def main() -> int:
    """Makes the machine, telling what happens."""
    from exporter.cli import render

    try:
        made = make(lambda line: print(f"arm64: {line} ...", file=sys.stderr, flush=True))
    except ExporterError as error:
        render.failed(error)
        return error.exit_code
    for name, value in versions().items():
        print(f"{name}  {value}")
    print(f"arm64 machine  {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
