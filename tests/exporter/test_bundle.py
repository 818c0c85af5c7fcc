"""Bundles written, opened, edited, and who may edit."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exporter.bundle import Bundle, content_name, editing, lock, read_tensors, write_tensors
from exporter.bundle.disk import Disk
from exporter.errors import Defect, ExporterError, Refused
from exporter.isolate import ROOT
from tests.attacks.bundles import DIGEST, assert_tidy, contents, key_of, manifest, publish


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.bundle"


def code_of(error: pytest.ExceptionInfo[ExporterError]) -> str:
    value = error.value
    assert value.what and value.where and value.why and value.next, value.as_json()
    return value.code


def test_what_is_published_opens(path: Path) -> None:
    made = publish(path, "one")
    found = Bundle.open(path)
    assert found.manifest == made.manifest
    found.check()
    name = found.manifest.graphs["step"].traced
    assert found.file(name).read_bytes() == found.read(name) == b"traced one"
    assert (path / "USE.md").read_text() == "how to use one\n"
    assert_tidy(path)


def test_names_hold_the_digest(path: Path) -> None:
    import hashlib

    files = publish(path, "one").manifest.files
    assert all(info.sha256[:12] in name for name, info in files.items())
    for name, info in files.items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == info.sha256
        assert (path / name).stat().st_size == info.bytes
    assert content_name("a/model.tar.gz", DIGEST) == "a/model-0123456789ab.tar.gz"
    assert content_name("model", DIGEST) == "model-0123456789ab"


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    publish(tmp_path / "a", "one")
    publish(tmp_path / "b", "one")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_update_replaces_and_prunes_and_reuses(path: Path) -> None:
    first = publish(path, "one")
    same = first.manifest.cases[0].file
    inode = (path / same).stat().st_ino
    second = publish(path, "two")
    assert second.manifest.cases[0].file == same
    assert (path / same).stat().st_ino == inode
    assert (path / "USE.md").read_text() == "how to use two\n"
    assert_tidy(path)


def test_files_of_the_user_stay(path: Path) -> None:
    publish(path, "one")
    (path / "notes.txt").write_text("mine")
    (path / "graphs" / "notes.txt").write_text("mine")
    publish(path, "two")
    assert (path / "notes.txt").read_text() == (path / "graphs" / "notes.txt").read_text() == "mine"


def test_a_file_may_be_carried_over_from_the_old_manifest(path: Path) -> None:
    publish(path, "one")
    with editing(path, "add") as draft:
        assert draft.old is not None
        report = draft.write("reports/verify.json", b"{}")
        import dataclasses

        draft.commit(dataclasses.replace(draft.old.manifest, reports={"verify": report}))
    found = Bundle.open(path)
    found.check()
    assert found.read(found.manifest.reports["verify"]) == b"{}"
    assert found.manifest.key == key_of("one")


def test_damage_is_not_declared_good_by_an_update(path: Path) -> None:
    import dataclasses

    made = publish(path, "one")
    name = made.manifest.graphs["step"].traced
    data = bytearray((path / name).read_bytes())
    data[0] ^= 1
    (path / name).write_bytes(data)
    with editing(path, "add") as draft:
        assert draft.old is not None
        draft.commit(dataclasses.replace(draft.old.manifest, tools={"torch": "3"}))
    with pytest.raises(Refused) as caught:
        Bundle.open(path).file(name)
    assert code_of(caught) == "digest-mismatch"


def test_publishing_again_repairs_damage(path: Path) -> None:
    made = publish(path, "one")
    (path / made.manifest.graphs["step"].traced).write_bytes(b"damaged")
    publish(path, "one").check()
    assert_tidy(path)


def test_a_file_that_was_never_added_is_a_defect(path: Path) -> None:
    with pytest.raises(Defect), editing(path, "x") as draft:
        draft.commit(manifest(files={}))
    assert not path.exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "manifest.json/../x", ".x", "con/x"])
def test_a_draft_keeps_inside_its_folder(path: Path, name: str) -> None:
    with pytest.raises(Defect), editing(path, "x") as draft:
        draft.write(name, b"")
    with pytest.raises(Defect), editing(path, "x") as draft:
        draft.derived("../USE.md", "")
    assert not path.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_no_trace_of_a_new_bundle(path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), editing(path, "x") as draft:
        draft.write("graphs/a.onnx", b"data")
        (draft.work / "more").mkdir()
        raise error
    assert not path.exists()
    path.mkdir()
    with pytest.raises(error), editing(path, "x") as draft:
        draft.write("graphs/a.onnx", b"data")
        raise error
    assert list(path.iterdir()) == []  # it was there before, and is again as it was


def test_an_error_leaves_an_old_bundle_as_it_was(path: Path) -> None:
    publish(path, "one")
    before = contents(path)
    with pytest.raises(ValueError), editing(path, "x") as draft:
        draft.write("graphs/a.onnx", b"data")
        draft.write("elsewhere/a.onnx", b"data")
        raise ValueError
    assert contents(path) == before
    assert_tidy(path)


def test_leaving_without_a_commit_changes_nothing(path: Path) -> None:
    with editing(path, "x"):
        pass
    assert not path.exists()
    publish(path, "one")
    before = contents(path)
    with editing(path, "x") as draft:
        assert draft.old is not None and draft.work.is_dir()
    assert contents(path) == before


def test_a_file_from_elsewhere_is_taken_in_even_if_it_has_two_names(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"data")
    os.link(source, tmp_path / "other")
    with editing(path, "x") as draft:
        name = draft.add(source, "graphs/a.onnx")
        assert (path / name).stat().st_nlink == 1
        assert (path / name).read_bytes() == b"data"
    assert (tmp_path / "other").read_bytes() == b"data"


# ---- what is no bundle


def test_a_folder_that_is_not_there(path: Path) -> None:
    with pytest.raises(Refused) as caught:
        Bundle.open(path)
    assert code_of(caught) == "missing-file"


def test_a_folder_without_a_manifest_and_a_file(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "file"):
        (tmp_path / "file").write_text("x")
        with pytest.raises(Refused) as caught:
            Bundle.open(place)
        assert code_of(caught) == "not-a-bundle"


def foreign_file(path: Path) -> None:
    path.write_text("mine")


def foreign_folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def browser_extension(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text('{"manifest_version": 3, "name": "mine"}')


def foreign_lock(path: Path) -> None:
    path.mkdir()
    (path / ".lock").write_text('{"pid": 1}')
    (path / "model-0123456789ab.onnx").write_text("mine")


def empty_foreign_lock(path: Path) -> None:
    path.mkdir()
    (path / ".lock").touch()
    (path / "model-0123456789ab.onnx").write_text("mine")


def foreign_leftovers(path: Path) -> None:
    path.mkdir()
    (path / ".work-1").mkdir()
    (path / ".work-1" / "thesis.tex").write_text("mine")
    (path / "thesis.pdf").write_text("mine")


FOREIGN = [foreign_file, foreign_folder, browser_extension, foreign_lock, empty_foreign_lock, foreign_leftovers]


@pytest.mark.parametrize("make", FOREIGN)
def test_what_is_not_ours_is_not_touched(make, path: Path) -> None:
    make(path)
    before = (path.read_bytes() if path.is_file() else contents(path)), sorted(path.parent.rglob("*"))
    with pytest.raises(Refused) as caught, editing(path, "x"):
        pytest.fail("entered")
    assert code_of(caught) == "foreign-folder"
    assert ((path.read_bytes() if path.is_file() else contents(path)), sorted(path.parent.rglob("*"))) == before


def test_a_damaged_bundle_is_not_written_over_and_the_error_says_what_to_do(path: Path) -> None:
    publish(path, "one")
    (path / "manifest.json").write_bytes((path / "manifest.json").read_bytes()[:-10])
    before = contents(path)
    with pytest.raises(Refused) as caught, editing(path, "x"):
        pytest.fail("entered")
    assert code_of(caught) == "bad-manifest" and f"rm -r {path}" in caught.value.next
    assert contents(path) == before


def test_a_newer_bundle_is_not_written_over(path: Path) -> None:
    publish(path, "one")
    file = path / "manifest.json"
    file.write_text(file.read_text().replace("exporter.bundle/2", "exporter.bundle/3"))
    before = contents(path)
    with pytest.raises(Refused) as caught, editing(path, "x"):
        pytest.fail("entered")
    assert code_of(caught) == "newer-schema"
    assert contents(path) == before


def test_a_missing_parent_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught, editing(tmp_path / "absent" / "tiny.bundle", "x"):
        pytest.fail("entered")
    assert code_of(caught) == "unwritable-folder" and f"mkdir -p {tmp_path / 'absent'}" in caught.value.next
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("effect", ["mkdir", "lock"])
def test_a_folder_without_rights_is_refused(path: Path, effect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Disk, found: str, name: str) -> None:
        if found == effect:
            raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(Disk, "step", step)  # a real one cannot be had where tests run as root
    with pytest.raises(Refused) as caught, editing(path, "x"):
        pytest.fail("entered")
    assert code_of(caught) == "unwritable-folder"
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_real_read_only_parent_is_refused(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises(Refused) as caught, editing(path, "x"):
            pytest.fail("entered")
        assert code_of(caught) == "unwritable-folder"
    finally:
        path.parent.chmod(0o700)


# ---- two editors

HOLD = """
import sys
from exporter.bundle import editing
with editing(sys.argv[1], "exporter mobile tiny") as draft:
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_editor_is_told_who_the_first_is(path: Path) -> None:
    with holder(path) as first:
        with pytest.raises(Refused) as caught, editing(path, "second"):
            pytest.fail("entered")
        assert code_of(caught) == "bundle-locked"
        for part in (str(first.pid), "exporter mobile tiny", " s"):
            assert part in caught.value.what
        assert str(first.pid) in caught.value.next
        assert [p.name for p in path.iterdir() if p.name.startswith(".work-")] == [f".work-{first.pid}"]
        first.communicate("\n")
    assert first.returncode == 0
    publish(path, "one").check()


def test_the_lock_of_a_dead_owner_is_taken(path: Path) -> None:
    with holder(path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert json.loads((path / ".lock").read_text())["pid"] == first.pid
    publish(path, "one").check()
    assert_tidy(path)


def test_a_lock_in_the_same_process_counts_too(path: Path) -> None:
    with editing(path, "outer"):
        with pytest.raises(Refused) as caught, editing(path, "inner"):
            pytest.fail("entered")
        assert code_of(caught) == "bundle-locked"
    with editing(path, "after"):
        pass


def test_a_lock_removed_between_opening_and_taking_it_is_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(path, "one")
    first = editing(path, "first")
    first.__enter__()
    flock = fcntl.flock
    calls = []

    def late(file: int, how: int) -> None:
        if not calls:
            first.__exit__(None, None, None)  # the first editor ends while the second is about to take its lock
        calls.append(file)
        flock(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with editing(path, "second"):
        with pytest.raises(Refused) as caught, editing(path, "third"):
            pytest.fail("entered")
        assert code_of(caught) == "bundle-locked"
    assert len(calls) == 3  # once for nothing


def test_a_child_of_the_editor_does_not_keep_the_lock(path: Path) -> None:
    with editing(path, "x"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        with editing(path, "y"):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_lock_with_a_forged_owner_breaks_nothing(path: Path) -> None:
    publish(path, "one")
    with editing(path, "x"):
        (path / ".lock").write_text('{"pid": "\\u001b[31m", "host": [1], "command": "\\u001b[2J", "since": "now"}')
        with pytest.raises(Refused) as caught, editing(path, "y"):
            pytest.fail("entered")
    assert code_of(caught) == "bundle-locked" and caught.value.what.isprintable()


# ---- tensors


def test_tensors_there_and_back(tmp_path: Path) -> None:
    tensors = {
        "b": np.arange(6.0).reshape(2, 3).T,
        "a": np.float32(1.5),
        "empty": np.zeros((0, 3), np.int64),
        "nan": np.array([np.nan, np.inf, -0.0]),
        "flags": np.array([True, False]),
    }
    write_tensors(tmp_path / "t", tensors)
    found = read_tensors(tmp_path / "t")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == np.asarray(tensor).dtype
        assert found[name].shape == np.asarray(tensor).shape
        np.testing.assert_array_equal(found[name], tensor)
    write_tensors(tmp_path / "again", dict(reversed(tensors.items())))
    assert (tmp_path / "t").read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\x80\x04K\x01.",
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}trailing",
        (len(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}')).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    ],
)
def test_malformed_tensors(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(Refused) as caught:
        read_tensors(tmp_path / "t")
    assert code_of(caught) == "bad-tensors"


def test_tensors_that_are_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "absent", tmp_path, tmp_path / "pipe"):
        with pytest.raises(Refused) as caught:
            read_tensors(place)
        assert caught.value.code == "missing-file"


def test_a_folder_keeps_its_file_names_and_gets_one_digest(path: Path) -> None:
    publish(path, "old")
    with editing(path, "x") as draft:
        assert draft.old is not None
        folder = draft.work / "sets"
        (folder / "test_data_set_0").mkdir(parents=True)
        (folder / "test_data_set_0" / "input_0.pb").write_bytes(b"input")
        (folder / "test_data_set_0" / "output_0.pb").write_bytes(b"output")
        names = draft.add_folder(folder, "cases/onnx")
        draft.commit(dataclasses.replace(draft.old.manifest, onnx_tests=names))
    assert [Path(name).name for name in names] == ["input_0.pb", "output_0.pb"]
    assert len({Path(name).parent for name in names}) == 1
    assert Bundle.open(path).read(names[0]) == b"input"


def test_a_folder_that_no_commit_made_part_of_the_bundle_is_removed(path: Path) -> None:
    publish(path, "old")
    before = contents(path)
    with pytest.raises(KeyError), editing(path, "x") as draft:
        (draft.work / "sets" / "test_data_set_0").mkdir(parents=True)
        (draft.work / "sets" / "test_data_set_0" / "input_0.pb").write_bytes(b"input")
        draft.add_folder(draft.work / "sets", "cases/onnx")
        raise KeyError
    assert contents(path) == before


def with_large_graph(path: Path) -> str:
    with editing(path, "x") as draft:
        assert draft.old is not None
        (draft.work / "g.onnx").write_bytes(b"graph")
        (draft.work / "g.onnx.data").write_bytes(b"weights")
        name = draft.add_graph(draft.work / "g.onnx", "graphs/traced.onnx")
        assert list(draft.work.iterdir()) == [], "it is moved, not copied"
        graph = dataclasses.replace(draft.old.manifest.graphs["step"], traced=name)
        draft.commit(dataclasses.replace(draft.old.manifest, graphs={"step": graph}))
    return name


def test_a_graph_and_its_data_keep_their_names_in_a_folder_of_theirs(path: Path) -> None:
    publish(path, "old")
    name = with_large_graph(path)
    assert re.fullmatch(r"graphs/traced-[0-9a-f]{12}/g\.onnx", name)
    assert Bundle.open(path).read(f"{name}.data") == b"weights"
    assert_tidy(path)


def test_data_stays_through_later_edits_and_goes_with_its_graph(path: Path) -> None:
    publish(path, "old")
    name = with_large_graph(path)
    with editing(path, "y") as draft:
        assert draft.old is not None
        draft.commit(dataclasses.replace(draft.old.manifest, tools={"other": "1"}))
    assert Bundle.open(path).read(f"{name}.data") == b"weights"
    publish(path, "new")
    assert not (path / name).parent.exists()
    assert_tidy(path)


def test_a_graph_without_data_is_a_file_like_any_other(path: Path) -> None:
    publish(path, "old")
    with editing(path, "x") as draft:
        (draft.work / "g.onnx").write_bytes(b"graph")
        assert draft.add_graph(draft.work / "g.onnx", "graphs/traced.onnx").count("/") == 1
