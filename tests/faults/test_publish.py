"""A publication ended or failed at every single effect it has on the disk.

The n-th effect kills the process, or fails, for every n until a publication gets through. After each: the old bundle
or the new one, whole, and the next editor finds a tidy folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.bundle import Bundle, editing
from exporter.bundle.disk import Disk, disk
from exporter.errors import Refused, StageFailed
from tests.attacks.bundles import assert_tidy, contents, key_of, publish

MOST = 300  # effects; a publication that needs more has gone wrong


MEMORY = Path("/dev/shm")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path / "tiny.bundle"
        return
    # Thousands of syncs: on a busy disk they take minutes, and what is tested is their order, not the disk.
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder) / "tiny.bundle"


class At:
    """Does something in place of the n-th effect, counted from 0."""

    def __init__(self, number: int, then: Callable[[str], None], only: frozenset[str] = frozenset()) -> None:
        self.number, self.then, self.only = number, then, only
        self.seen: list[tuple[str, str]] = []

    def __call__(self, effect: str, name: str) -> None:
        if not self.only or effect in self.only:
            self.seen.append((effect, name))
            if len(self.seen) - 1 == self.number:
                self.then(effect)

    @property
    def reached(self) -> bool:
        return len(self.seen) > self.number


def kill(effect: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_fork(work: Callable[[], object], number: int) -> bool:
    """Runs ``work`` in a fork that is killed at the n-th effect; whether it was."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            disk.step = At(number, kill)  # type: ignore[method-assign]
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), f"effect {number}: exit status {status}"
    return status != 0


def state(path: Path) -> str:
    """``"none"``, or the tag of the bundle that is there, every byte of it checked."""
    if not (path / "manifest.json").exists():
        with pytest.raises(Refused) as caught:
            Bundle.open(path)
        assert caught.value.code in ("missing-file", "not-a-bundle")
        return "none"
    found = Bundle.open(path)
    found.check()
    tag = bytes.fromhex(found.manifest.key).rstrip(b"\0").decode()
    assert found.read(found.manifest.graphs["step"].traced) == f"traced {tag}".encode()
    return tag


def prepare(path: Path, before: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if before == "empty":
        path.mkdir()
    elif before == "dead":  # a first publication that died after its first file
        assert in_a_fork(lambda: publish(path, "dead"), 20)
        assert not (path / "manifest.json").exists() and (path / "graphs").exists()
    elif before != "none":
        publish(path, before)


SLOWLY = [pytest.param(before, marks=pytest.mark.slow) for before in ("empty", "dead")]


@pytest.mark.parametrize("before", ["none", "old", *SLOWLY])
def test_killed_at_every_effect(path: Path, before: str) -> None:
    states = []
    for number in range(MOST):
        prepare(path, before)
        killed = in_a_fork(lambda: publish(path, "new"), number)
        states.append(state(path))
        if not killed:
            break
        publish(path, "third").check()  # the next editor has no trouble
        assert_tidy(path)
    assert not killed and number > 25
    first = "old" if before == "old" else "none"
    turn = states.index("new")  # old up to the one replace, new from there on
    assert states == [first] * turn + ["new"] * (len(states) - turn)
    assert 0 < turn < len(states) - 1


def fail_halfway(path: Path) -> None:
    try:
        with editing(path, "x") as draft:
            draft.write("graphs/deep/a.onnx", b"data")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


@pytest.mark.parametrize("before", ["none", "empty", "dead", "old"])
def test_killed_at_every_effect_of_giving_up(path: Path, before: str) -> None:
    for number in range(MOST):
        prepare(path, before)
        killed = in_a_fork(lambda: fail_halfway(path), number)
        assert state(path) == ("old" if before == "old" else "none")
        if not killed:
            break
        fail_halfway(path)  # the next editor fails too: its cleaning up must not turn the folder into a foreign one
        assert state(path) == ("old" if before == "old" else "none")
        publish(path, "third").check()
        assert_tidy(path)
    assert not killed and number > 10


def test_killed_again_and_again(path: Path) -> None:
    """Leftovers of many deaths add up to nothing."""
    publish(path, "old")
    for number in range(0, 60, 3):
        in_a_fork(lambda number=number: publish(path, f"new{number}"), number)
        state(path)
    publish(path, "last")
    assert_tidy(path)


WRITING = frozenset({"mkdir", "lock", "write", "sync", "replace"})


@pytest.mark.parametrize("before", ["none", "empty", "dead", "old"])
@pytest.mark.parametrize("number_", [errno.ENOSPC, errno.EDQUOT], ids=["ENOSPC", "EDQUOT"])
def test_no_room_at_every_write(path: Path, before: str, number_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(effect: str) -> None:
        raise OSError(number_, os.strerror(number_))

    for number in range(MOST):
        prepare(path, before)
        untouched = contents(path)
        at = At(number, no_room, WRITING)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "step", at)
            error = attempt(path)
        if not at.reached:
            assert error is None
            break
        assert error is not None and error.code == "disk-full", at.seen[-1]
        assert "bytes needed" in error.what and "bytes free" in error.what
        assert error.where and error.why and error.next
        if state(path) != "new":  # the one replace had not come yet: as if nothing had been tried
            assert contents(path) == untouched or before == "dead"
            assert path.exists() == (before != "none")
        publish(path, "third").check()
        assert_tidy(path)
    assert number > 20


def attempt(path: Path) -> StageFailed | None:
    try:
        publish(path, "new")
    except StageFailed as error:
        return error
    return None


def test_no_room_for_a_stage(path: Path) -> None:
    publish(path, "old")
    before = contents(path)
    with pytest.raises(StageFailed) as caught, editing(path, "x") as draft:
        (draft.work / "large").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.code == "disk-full"
    assert contents(path) == before


def test_the_message_says_how_many_bytes_were_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(effect: str, name: str) -> None:
        if effect == "write" and name.startswith(".new-"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "step", step)
    with pytest.raises(StageFailed, match="12345 bytes needed"), editing(path, "x") as draft:
        draft.write("graphs/a.onnx", b"x" * 12345)
    assert not path.exists()


@pytest.mark.parametrize("effect", ["unlink", "rmdir", "rmtree"])
def test_what_cannot_be_removed_does_not_fail_a_publication(
    path: Path, effect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(path, "old")

    def step(found: str, name: str) -> None:
        if found == effect and name != ".lock" and not name.startswith(".new-"):
            raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "step", step)
        publish(path, "new")
    assert state(path) == "new"
    publish(path, "third")
    assert_tidy(path)


def test_cleaning_up_does_not_hide_the_first_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(effect: str, name: str) -> None:
        if effect in ("unlink", "rmdir", "rmtree"):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(ZeroDivisionError), editing(path, "x") as draft:
        draft.write("graphs/a.onnx", b"data")
        monkeypatch.setattr(disk, "step", step)
        raise ZeroDivisionError


def test_the_order_survives_a_power_loss(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file's bytes are synced before it gets its name, every name before the manifest, the manifest last."""
    at = At(MOST, kill)
    monkeypatch.setattr(disk, "step", at)
    files = publish(path, "new").manifest.files
    replaces = [name for effect, name in at.seen if effect == "replace"]
    assert sorted(replaces[:-2]) == sorted(name.rpartition("/")[2] for name in files)
    assert replaces[-2:] == ["manifest.json", "USE.md"]
    commit = at.seen.index(("replace", "manifest.json"))
    for name in files:
        index = at.seen.index(("replace", name.rpartition("/")[2]))
        assert at.seen[index + 1] == ("sync", name)  # the folder that holds the name, opened for this file
        assert index + 1 < commit
        above = name.rpartition("/")[0].rpartition("/")[0] or "."
        assert ("sync", above) in at.seen[index:commit]
    assert at.seen[commit - 1][0] == "sync" and at.seen[commit - 1][1].startswith(".new-")
    assert at.seen[commit + 1] == ("sync", str(path))
    for index, (effect, name) in enumerate(at.seen):
        if effect == "replace":
            assert "sync" in [before for before, _ in at.seen[:index] if before in ("sync", "write")][-3:], name


def test_readers_during_publications_see_whole_bundles(path: Path) -> None:
    publish(path, "tag0")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for number in range(1, 60):
                publish(path, f"tag{number}")
            code = 0
        finally:
            os._exit(code)
    seen, code = set(), None
    while code is None:
        found = Bundle.open(path)
        tag = bytes.fromhex(found.manifest.key).rstrip(b"\0").decode()
        seen.add(tag)
        try:
            assert found.read(found.manifest.graphs["step"].traced) == f"traced {tag}".encode()
        except Refused as error:  # replaced meanwhile: noticed, and named
            assert error.code == "missing-file"
        done, status = os.waitpid(pid, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if done else None
    assert code == 0 and len(seen) > 3
    assert Bundle.open(path).manifest.key == key_of("tag59")


def test_a_disk_that_counts_nothing_changes_nothing() -> None:
    assert isinstance(disk, Disk) and Disk().step("write", "x") is None
