"""The cache's folder: what is taken is what was kept, or nothing; what cannot be kept costs time alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import folders
from exporter.cache import entry as entries
from exporter.cache import listing, store
from exporter.cache.entry import MANIFEST, Entry
from exporter.cache.key import digest_of
from exporter.cache.store import Cache, of_this_user
from exporter.errors import Refused
from tests.cli_fakes.tool import contents

FILES = {"cases/one.safetensors": b"tensors" * 1000, "graph.onnx": b"a graph"}
VALUE = {"cases": [{"file": "work:cases/one.safetensors", "scale": 0.1}], "n": 3}


def key(name: str) -> str:
    return digest_of(name)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache" / "stages")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder as a stage left it."""
    folder = tmp_path / "work"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def kept(cache: Cache, work: Path, name: str = "it", names: tuple[str, ...] = tuple(FILES)) -> Path:
    cache.keep(Entry(key(name), "tiny", "trace", time.time(), VALUE, {}), work, names)
    return cache.folder / key(name)


def taken(cache: Cache, place: Path, name: str = "it") -> Entry | None:
    place.mkdir()
    found = cache.fetch(key(name), place)
    assert found is not None or contents(place) in ({}, {"cases": "folder"}), "what is not taken leaves no file"
    return found


def test_what_is_kept_is_taken(cache: Cache, work: Path, tmp_path: Path) -> None:
    assert taken(cache, tmp_path / "before") is None
    folder = kept(cache, work)
    found = taken(cache, tmp_path / "there")
    assert found is not None and found.value == VALUE and found.model == "tiny"
    assert contents(tmp_path / "there") == contents(work)
    assert os.stat(cache.folder).st_mode & 0o777 == 0o700
    assert not any(os.lstat(path).st_mode & 0o022 for path in (folder, *folder.rglob("*")))
    for name in FILES:
        assert os.lstat(tmp_path / "there" / name).st_mode == os.lstat(work / name).st_mode & ~0o022
    assert taken(cache, tmp_path / "other", "another key") is None


def swapped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def linked(path: Path) -> None:
    shutil.move(path, path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def hard_linked(path: Path) -> None:
    os.link(path, path.parent.parent / "another-name")


def foreign(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    os.chown(path, 12345, -1)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def changed(**said: object) -> Callable[[Path], None]:
    """A manifest that says something else; it keeps a digest that is right, or an old one."""

    def change(folder: Path) -> None:
        outer = json.loads((folder / MANIFEST).read_text())
        right = said.pop("right", True)
        outer["entry"] |= said
        (folder / MANIFEST).write_text(
            json.dumps({"sha256": digest_of(outer["entry"]) if right else outer["sha256"], "entry": outer["entry"]})
        )

    return change


def outside(folder: Path) -> None:
    """All of it is right, but a file is beside the entry, and would be copied beside the work folder."""
    (folder.parent / "outside").write_bytes(b"x")
    changed(files={"../outside": [hashlib.sha256(b"x").hexdigest(), 1]})(folder)


ON_FILE = [
    swapped, linked, hard_linked, foreign, piped, Path.unlink,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes() + b"x"),
    lambda path: path.chmod(0o620), lambda path: path.chmod(0o602),
]  # fmt: skip
ON_ENTRY = [
    changed(right=False, value={"measured": 0.0}), changed(schema="exporter.cache-entry/2"), changed(key="0" * 64),
    outside, changed(files={"/etc/passwd": ["0" * 64, 1]}), changed(files=3),
    changed(more=1), lambda folder: (folder / MANIFEST).write_text("[" * 100_000),
    lambda folder: (folder / MANIFEST).write_text("{}"), lambda folder: (folder / MANIFEST).write_bytes(b"\xff"),
    lambda folder: shutil.rmtree(folder / "cases"),
]  # fmt: skip
SPOILING = [
    *((lambda folder, it=spoil, name=name: it(folder / name)) for spoil in ON_FILE for name in (*FILES, MANIFEST)),
    *ON_ENTRY,
]


@pytest.mark.parametrize("spoil", SPOILING)
def test_what_was_changed_is_dropped_and_made_again(
    spoil: Callable[[Path], object], cache: Cache, work: Path, tmp_path: Path
) -> None:
    folder = kept(cache, work)
    spoil(folder)
    assert taken(cache, tmp_path / "there") is None
    assert not os.path.lexists(folder) and not (tmp_path / "outside").exists()
    kept(cache, work)
    assert taken(cache, tmp_path / "again") is not None


@pytest.mark.parametrize("kind", ["link", "file"])
def test_an_entry_that_is_no_folder(kind: str, cache: Cache, work: Path, tmp_path: Path) -> None:
    folder = kept(cache, work)
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    if kind == "link":
        folder.symlink_to(elsewhere)
        changed(key=key("it"))(elsewhere)
    else:
        folder.write_bytes(b"")
    found = taken(cache, tmp_path / "there")
    assert kind == "link" or found is None
    cache.prune(most=0)
    assert not os.path.lexists(folder) and (elsewhere / MANIFEST).is_file(), "what a link names is left alone"


@pytest.mark.parametrize("how", ["another's", "group", "others", "file", "link"])
def test_a_folder_that_is_not_this_users_alone_is_not_used(how: str, cache: Cache, work: Path, tmp_path: Path) -> None:
    kept(cache, work)
    if how == "another's":
        foreign(cache.folder)
    elif how in ("group", "others"):
        cache.folder.chmod(0o720 if how == "group" else 0o702)
    else:
        cache.folder.rename(tmp_path / "moved")
        cache.folder.symlink_to(tmp_path / "moved") if how == "link" else cache.folder.write_bytes(b"")
    assert cache.problem() and listing.listed(cache)["problem"]
    before = contents(tmp_path)
    assert taken(cache, tmp_path / "there") is None
    kept(cache, work, "more")
    assert cache.prune(most=0) == []
    assert contents(tmp_path) == before | {"there": "folder"}


def test_what_is_kept_first_stays(cache: Cache, work: Path, tmp_path: Path) -> None:
    """Two exports of one model at the same time, of which one is done later."""
    kept(cache, work)
    before = contents(cache.folder)
    kept(cache, work)
    assert contents(cache.folder) == before


def test_the_entries_used_longest_ago_go_first(cache: Cache, work: Path, tmp_path: Path) -> None:
    for age, name in ((300, "first"), (200, "second"), (100, "third")):
        os.utime(kept(cache, work, name) / MANIFEST, (time.time() - age,) * 2)
    assert taken(cache, tmp_path / "used", "first") is not None
    one = cache.held()[0].bytes
    bounded = Cache(cache.folder, limit=int(3.5 * one))
    kept(bounded, work, "fourth")
    assert {held.key for held in cache.held()} == {key("first"), key("third"), key("fourth")}
    assert sum(held.bytes for held in cache.held()) <= bounded.limit
    kept(Cache(cache.folder, limit=one // 2), work, "too large")
    assert len(cache.held()) == 3, "what does not fit at all displaces nothing"
    gone = cache.prune(unused_since=time.time() - 50)
    assert [held.key for held in gone] == [key("third")]
    assert len(cache.prune(most=0)) == 2 and contents(cache.folder) == {}


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_a_limit_of_nothing_is_no_cache(limit: int, cache: Cache, work: Path, tmp_path: Path) -> None:
    bounded = Cache(cache.folder, limit)
    kept(bounded, work, names=())
    assert (taken(bounded, tmp_path / "there") is not None) == (limit > 0)
    assert cache.folder.exists() == (limit > 0)


def test_room_is_left_on_the_disk(cache: Cache, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle on the same disk needs it more."""
    size = sum(map(len, FILES.values()))
    for free, there in ((size + store.ROOM - 1, False), (size + store.ROOM, True)):
        monkeypatch.setattr(store.shutil, "disk_usage", lambda _, free=free: type("Usage", (), {"free": free}))
        assert kept(cache, work).exists() == there


def test_a_full_disk_costs_time_only(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROOM", 0)
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system needs the right to mount one")
    try:
        monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 40}))
        for number in range(4):
            kept(Cache(place / "stages"), work, str(number))
        assert 1 <= len(Cache(place / "stages").held()) < 4
        assert not [name for name in os.listdir(place / "stages") if name.startswith(".")], "nothing half written"
    finally:
        subprocess.run(["umount", str(place)], capture_output=True, check=False)


def test_where_nothing_can_be_written(tmp_path: Path, work: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "stages")
    kept(cache, work)
    assert taken(cache, tmp_path / "there") is None and cache.held() == [] and cache.prune(most=0) == []


def test_a_work_folder_that_cannot_be_written_is_no_fault_of_the_entry(
    cache: Cache, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kept(cache, work)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entries, "_copied", full)
    with pytest.raises(OSError, match="No space left"):
        cache.fetch(key("it"), tmp_path / "there")
    assert folder.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from exporter.cache import entry
from exporter.cache.store import Cache

plain, seen = entry._copied, 0
def copied(*arguments):
    global seen
    seen += 1
    if seen == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*arguments)
entry._copied = copied
found = entry.Entry("1" * 64, "tiny", "trace", 0.0, {}, {})
Cache(Path(sys.argv[1])).keep(found, Path(sys.argv[2]), sys.argv[3:])
"""


def test_killed_while_keeping(cache: Cache, work: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(cache.folder), str(work), *FILES]
    assert subprocess.run(words, check=False).returncode == -9
    (left,) = os.listdir(cache.folder)
    assert left.startswith(".new-") and cache.held() == []
    cache.prune()
    assert os.listdir(cache.folder) == [left], "its writer might still be at it"
    os.utime(cache.folder / left, (0, 0))
    (cache.folder / "notes.txt").write_text("the user's")
    cache.prune(most=0)
    assert os.listdir(cache.folder) == ["notes.txt"]


def test_where_it_lies_and_what_bounds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EXPORTER_CACHE_MB")
    assert of_this_user() == Cache(folders.cache() / "stages", store.DEFAULT_LIMIT)
    monkeypatch.setenv("EXPORTER_CACHE_MB", "7")
    assert of_this_user() == Cache(tmp_path / "exporter" / "stages", 7 << 20)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", _homeless)
    assert not of_this_user().limit and of_this_user().problem()
    for text in ("x", "-1", "1.5", "1 000"):
        monkeypatch.setenv("EXPORTER_CACHE_MB", text)
        with pytest.raises(Refused, match="bad-option"):
            of_this_user()


def _homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ((None, None, False), {"new", "old"}), (("1d", None, False), {"new"}), (("90m", None, False), {"new"}),
        (("3d", None, False), {"new", "old"}), ((None, "8K", False), {"new"}), ((None, "1G", False), {"new", "old"}),
        ((None, "0", False), set()), ((None, None, True), set()),
    ],
)  # fmt: skip
def test_pruned(options: tuple[str | None, str | None, bool], left: set[str], cache: Cache, work: Path) -> None:
    kept(cache, work, "new")
    os.utime(kept(cache, work, "old") / MANIFEST, (time.time() - 2 * 86400,) * 2)
    size = listing.listed(cache)["bytes"]
    found = listing.pruned(cache, *options)
    assert {entry["key"] for entry in found["entries"]} == {key(name) for name in left}
    assert found["pruned"]["entries"] == 2 - len(left) and found["pruned"]["bytes"] + found["bytes"] == size


@pytest.mark.parametrize(("older", "size"), [("7", None), ("d", None), ("-7d", None), (None, "x"), (None, "-1")])
def test_a_time_or_a_size_that_is_none(older: str | None, size: str | None, cache: Cache, work: Path) -> None:
    folder = kept(cache, work)
    with pytest.raises(Refused, match="bad-option"):
        listing.pruned(cache, older, size, False)
    assert folder.exists()
