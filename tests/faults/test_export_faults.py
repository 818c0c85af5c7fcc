"""A whole export that is killed, interrupted, starved of disk, or started twice: the old bundle or the new one.

Nothing else lies there afterwards, no child lives on, and the same command then works.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli_fakes.tool import (
    Ended,
    alive,
    assert_whole,
    contents,
    copied,
    descendants,
    ended,
    environment,
    exported,
    run,
    spawn,
    until,
)

FIRST = ("fake-good", "tiny", "--no-profile")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def hanging(bundle: Path, notes: Path, *more: object) -> subprocess.Popen[str]:
    """An export that is in the middle of a compile that never ends."""
    process = spawn(
        "fake-hang", "tiny", "-o", bundle, "--no-profile", *more, env={"FAKES_NOTES": str(notes)}, cached=True
    )
    until(lambda: (notes / "hanging").exists() and (notes / "hanging").read_text())
    return process


def all_gone(pids: set[int]) -> None:
    until(lambda: not any(map(alive, pids)), 10)


# ----------------------------------------------------------------------------------------------- Ctrl-C and kill


@pytest.mark.parametrize(
    ("who", "number"), [("group", signal.SIGINT), ("parent", signal.SIGINT), ("parent", signal.SIGTERM)]
)
@pytest.mark.parametrize("there", ["a bundle", pytest.param("nothing", marks=pytest.mark.slow)])
def test_interrupted(work: Path, notes: Path, who: str, number: signal.Signals, there: str) -> None:
    bundle = copied(work) if there == "a bundle" else work / "tiny.bundle"
    before = contents(work)
    process = hanging(bundle, notes)
    family = descendants(process.pid)
    assert len(family) >= 2, "the compile and its helper"
    (os.killpg if who == "group" else os.kill)(process.pid, number)
    found = ended(process, 20)
    assert found.code == 130 and found.out == ""
    assert found.err.splitlines()[-1] == "interrupted: children ended, nothing half written"
    assert "Traceback" not in found.err
    all_gone(family)
    assert contents(work) == before


def test_interrupted_again_and_again(work: Path, notes: Path) -> None:
    """An impatient second Ctrl-C, in the middle of cleaning up, ends it no less cleanly."""
    bundle = copied(work)
    before = contents(work)
    process = hanging(bundle, notes)
    family = descendants(process.pid)
    for _ in range(5):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.004)
    found = ended(process, 20)
    all_gone(family)
    assert found.code == 130 and "Traceback" not in found.err, found
    assert contents(work) == before
    assert run(*FIRST, "-o", bundle, cached=True).code == 0
    assert_whole(bundle)


@pytest.mark.parametrize("stage", ["trace", pytest.param("simplify", marks=pytest.mark.slow)])
def test_interrupted_while_tracing(work: Path, stage: str) -> None:
    """Two children at once, one of them started from a thread."""
    process = spawn(*FIRST, "-o", work / "tiny.bundle")
    assert process.stderr is not None
    while not process.stderr.readline().startswith(f"{stage} ..."):
        assert process.poll() is None
    time.sleep(0.3)
    family = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    found = ended(process, 20)
    all_gone(family)
    assert found.code == 130 and list(work.iterdir()) == []


def test_json_says_that_it_was_interrupted(work: Path, notes: Path) -> None:
    """Exit code 130 and nothing on stdout: half an object would be worse than none."""
    process = hanging(copied(work), notes, "--json")
    os.kill(process.pid, signal.SIGINT)
    found = ended(process, 20)
    assert found.code == 130 and found.out == ""


# ------------------------------------------------------------------------------------------------------ kill -9


def killed_at(line: str, bundle: Path, delay: float, *command: object) -> str | None:
    """Kills an export ``delay`` seconds after it said ``line``; what it said, or None where it had ended before."""
    process = spawn(*command, "-o", bundle)
    assert process.stderr is not None
    said = process.stderr.readline()
    while said and not said.startswith(f"{line} ..."):
        said = process.stderr.readline()
    time.sleep(delay)
    family = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    found = ended(process, 20)
    all_gone(family)
    return None if found.code == 0 else said


@pytest.mark.parametrize(
    ("stage", "delay"),
    [
        ("trace", 1.0),
        *(
            pytest.param(*at, marks=pytest.mark.slow)
            for at in [("trace", 0.0), ("simplify", 0.2), ("verify traced", 0.1)]
        ),
    ],
)
def test_killed_in_a_first_export(work: Path, stage: str, delay: float) -> None:
    bundle = work / "tiny.bundle"
    assert killed_at(stage, bundle, delay, *FIRST) is not None
    assert not (bundle / "manifest.json").exists()
    assert run("verify", bundle).code == 2, "what is left is no bundle, and nobody takes it for one"
    assert run(*FIRST, "-o", bundle, cached=True).code == 0
    assert_whole(bundle)


@pytest.mark.parametrize(
    ("stage", "delay"),
    [pytest.param("compile", d / 10, marks=[] if d in {2, 8} else [pytest.mark.slow]) for d in range(0, 14, 2)],
)
def test_killed_while_a_bundle_is_added_to(work: Path, stage: str, delay: float) -> None:
    """The graph is there already: what is killed is a compile, a verification, the publication, or the end."""
    bundle = copied(work)
    old = (bundle / "manifest.json").read_bytes()
    killed_at(stage, bundle, delay, "fake-crashes-later", "tiny", "--no-profile")
    found = run("verify", bundle, "--json")
    assert found.code == 0, found
    new = (bundle / "manifest.json").read_bytes() != old
    held = {"fake-good", "fake-crashes-later"} if new else {"fake-good"}
    assert {hop["target"] for hop in found.json["hops"]} == held
    assert run("fake-crashes-later", "tiny", "--no-profile", "-o", bundle, cached=True).code == 0
    assert set(assert_whole(bundle).manifest.targets) == {"fake-good/fp32", "fake-crashes-later/fp32"}


KILLER = """
import os, signal, sys
from exporter.bundle.disk import disk

number, how, seen = int(sys.argv[1]), sys.argv[2], 0
def step(effect, name):
    global seen
    seen += 1
    if seen == number:
        os.kill(os.getpid(), signal.SIGKILL)

def starve(effect, name):
    global seen
    if effect in ("mkdir", "lock", "write", "sync", "replace"):
        seen += 1
        if seen >= number:
            raise OSError(28, "No space left on device")

disk.step = step if how == "kill" else starve
sys.argv[:] = ["exporter", *sys.argv[3:]]
from exporter.cli.app import main
main()
"""


def disturbed(number: int, how: str, *command: object) -> Ended:
    """The whole command with its n-th effect on the disk killed, or every one from there on failing."""
    import sys

    words = [sys.executable, "-c", KILLER, str(number), how, *map(str, command)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def effects() -> list[int]:
    """Some of the effects of a publication; tests/faults/test_publish.py ends each of them, without the pipeline."""
    return [1, 10, 21, 31]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 45))
def test_killed_at_every_effect_of_a_real_export(work: Path, number: int) -> None:
    check_killed(work, number)


@pytest.mark.parametrize("number", effects())
def test_killed_at_some_effects_of_a_real_export(work: Path, number: int) -> None:
    check_killed(work, number)


def check_killed(work: Path, number: int) -> None:
    bundle = copied(work)
    old = (bundle / "manifest.json").read_bytes()
    found = disturbed(number, "kill", "fake-crashes-later", "tiny", "--no-profile", "-o", bundle)
    assert found.code in (0, -signal.SIGKILL), found
    new = (bundle / "manifest.json").read_bytes() != old
    assert found.code != 0 or new
    held = exporter_targets(bundle)
    assert held == {"fake-good/fp32"} | ({"fake-crashes-later/fp32"} if new else set())
    assert run("fake-crashes-later", "tiny", "--no-profile", "-o", bundle, cached=True).code == 0
    assert_whole(bundle)


def exporter_targets(bundle: Path) -> set[str]:
    from exporter.bundle import Bundle

    opened = Bundle.open(bundle)
    opened.check()
    return set(opened.manifest.targets)


# ------------------------------------------------------------------------------------------------- no room left


@pytest.mark.parametrize("number", [1, 14, *(pytest.param(n, marks=pytest.mark.slow) for n in (6, 20))])
def test_no_room_in_a_real_export(work: Path, number: int) -> None:
    bundle = copied(work)
    before = contents(work)
    found = disturbed(number, "starve", "fake-crashes-later", "tiny", "--no-profile", "-o", bundle)
    said = found.failed("disk-full", 4)
    assert "bytes needed" in said and "bytes free" in said
    assert contents(work) == before
    assert run("fake-crashes-later", "tiny", "--no-profile", "-o", bundle, cached=True).code == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many KiB."""
    place = tmp_path / "disk"
    place.mkdir()

    def mounted(kib: int) -> Path:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(place)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("a small file system needs the right to mount one")
        return place

    yield mounted
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize("spare", [0, 8])
def test_a_disk_that_is_full(small_disk: Callable[[int], Path], spare: int) -> None:
    """A real full disk, where a stage in a child may be the one to notice: old bundle, and an error that says why."""
    disk = small_disk(2048)
    bundle = copied(disk)
    free = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(b"x" * max(0, free - spare * 1024))
    before = contents(disk)
    found = run("fake-crashes-later", "tiny", "--no-profile", "-o", bundle)
    assert found.code == 4 and "Traceback" not in found.err, found
    assert "No space left" in found.err or "no space left" in found.err, found
    assert contents(disk) == before
    (disk / "filler").unlink()
    assert run("fake-crashes-later", "tiny", "--no-profile", "-o", bundle, cached=True).code == 0
    assert_whole(bundle)


def test_a_first_export_on_a_full_disk(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(64)
    (disk / "filler").write_bytes(b"x" * 40 * 1024)
    found = run(*FIRST, "-o", disk / "tiny.bundle")
    assert found.code == 4 and "Traceback" not in found.err, found
    assert [p.name for p in disk.iterdir()] == ["filler"]


def test_a_limit_on_the_size_of_files(work: Path) -> None:
    """``ulimit -f``: a write fails with EFBIG, which is neither a bug of ours nor a bundle."""
    bundle = copied(work)
    before = contents(work)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

    found = run("fake-crashes-later", "tiny", "--no-profile", "-o", bundle, preexec_fn=limited)
    assert found.code in (4, 70) and "Traceback" not in found.err, found
    assert "File too large" in found.err
    assert contents(work) == before


# ------------------------------------------------------------------------------------------ two at the same time


def test_the_second_export_says_who_is_at_it(work: Path, notes: Path) -> None:
    bundle = copied(work)
    first = hanging(bundle, notes, "--timeout", 12)
    during = contents(work)
    for words in (
        ("fake-good", "tiny", "--no-profile", "-o", bundle),
        ("fake-good", "tiny", "--no-profile", "-o", bundle, "--replace"),
        ("compile", bundle, "--target", "fake-good"),
        ("verify", bundle, "--save"),
    ):
        started = time.monotonic()
        said = run(*words).refused("bundle-locked")
        assert f"process {first.pid}" in said and "exporter fake-hang tiny" in said and f"kill {first.pid}" in said
        assert time.monotonic() - started < 10
        assert contents(work) == during
    assert run("verify", bundle).code == 0, "readers are not kept out"
    ended(first, 60).failed("stage-timed-out", 4)
    assert run("fake-good", "tiny", "--no-profile", "-o", bundle, cached=True).code == 0


@pytest.mark.slow
def test_two_first_exports_at_once(work: Path) -> None:
    """One of them makes the bundle, the other is told so, whoever comes first."""
    bundle = work / "tiny.bundle"
    both = [spawn(*FIRST, "-o", bundle) for _ in range(2)]
    found = [ended(process) for process in both]
    assert sorted(end.code for end in found) == [0, 2], found
    loser = found[0] if found[0].code == 2 else found[1]
    winner = both[1] if found[0].code == 2 else both[0]
    assert f"process {winner.pid}" in loser.refused("bundle-locked")
    assert_whole(bundle)


def test_a_dead_owner_holds_nothing(work: Path, notes: Path) -> None:
    bundle = copied(work)
    first = hanging(bundle, notes)
    os.kill(first.pid, signal.SIGKILL)
    ended(first, 20)
    all_gone({int((notes / "hanging").read_text())})
    # What a stage started itself outlives a kill -9 of the exporter: the kernel tells children, not their children.
    os.kill(int((notes / "helper").read_text()), signal.SIGKILL)
    assert re.search(r'"pid": \d+', (bundle / ".lock").read_text())
    assert run("fake-good", "tiny", "--no-profile", "-o", bundle, cached=True).code == 0
    assert_whole(bundle)


def test_readers_while_a_bundle_is_replaced(work: Path) -> None:
    """Whoever verifies meanwhile judges the old bundle or the new one, or is told that it changed; never a mixture."""
    bundle = copied(work)
    writer = spawn("fake-crashes-later", "tiny", "--no-profile", "-o", bundle)
    seen = []
    while writer.poll() is None:
        found = run("verify", bundle, "--json")
        assert found.code in (0, 2), found
        assert found.json.get("verdict", "PASS") == "PASS"
        seen.append(found.code)
    assert ended(writer).code == 0 and seen
    assert exported() != bundle
