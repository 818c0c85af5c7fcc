"""Bundles made to reach outside their folder, to hang a reader, or to pass off other bytes as theirs."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.bundle import Bundle, editing
from exporter.errors import Refused
from tests.attacks import graphs
from tests.attacks.bundles import contents, publish

SECRET = b"traced one"  # the very bytes that are expected, so that only how they are reached is wrong


@pytest.fixture
def path(tmp_path: Path) -> Path:
    publish(tmp_path / "tiny.bundle", "one")
    return tmp_path / "tiny.bundle"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def name_of(path: Path) -> str:
    return Bundle.open(path).manifest.graphs["step"].traced


def refusal(use: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        use()
    error = caught.value
    assert error.what and error.where and error.why and error.next
    return error


def test_a_link_in_place_of_a_file(path: Path, outside: Path) -> None:
    name = name_of(path)
    (outside / "secret").write_bytes(SECRET)
    (path / name).unlink()
    (path / name).symlink_to(outside / "secret")
    for use in (Bundle.open(path).file, Bundle.open(path).read):
        assert refusal(lambda use=use: use(name)).code == "unsafe-file"


def test_a_link_to_a_file_inside_is_one_too(path: Path) -> None:
    name = name_of(path)
    (path / name).rename(path / "moved")
    (path / name).symlink_to(path / "moved")
    assert refusal(lambda: Bundle.open(path).file(name)).code == "unsafe-file"


@pytest.mark.parametrize("depth", [1, 2])
def test_a_link_in_place_of_a_parent(path: Path, outside: Path, depth: int) -> None:
    name = Bundle.open(path).manifest.targets["some/fp32"].files["bin"]
    parent = path.joinpath(*name.split("/")[:depth])
    shutil.move(parent, outside / "moved")
    parent.symlink_to(outside / "moved")
    assert (path / name).is_file()  # whoever follows links gets there
    error = refusal(lambda: Bundle.open(path).file(name))
    assert error.code == "unsafe-file" and "link" in error.what


def test_a_file_in_place_of_a_parent(path: Path) -> None:
    name = name_of(path)
    shutil.rmtree(path / "graphs")
    (path / "graphs").write_text("x")
    assert refusal(lambda: Bundle.open(path).file(name)).code == "unsafe-file"


def test_a_hard_link_to_a_file_outside(path: Path, outside: Path) -> None:
    name = name_of(path)
    (outside / "secret").write_bytes(SECRET)
    (path / name).unlink()
    os.link(outside / "secret", path / name)
    error = refusal(lambda: Bundle.open(path).file(name))
    assert error.code == "unsafe-file" and "hard link" in error.what


def pipe(place: Path) -> None:
    os.mkfifo(place)


def folder(place: Path) -> None:
    place.mkdir()


def unix_socket(place: Path) -> None:
    here = os.getcwd()
    os.chdir(place.parent)  # the name of a socket may have no more than 107 letters
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(place.name)
    finally:
        os.chdir(here)


def device(place: Path) -> None:
    try:
        os.mknod(place, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("make", [pipe, folder, unix_socket, device])
@pytest.mark.parametrize("which", ["file", "manifest"])
def test_what_is_no_file_neither_hangs_nor_feeds_the_reader(
    path: Path, which: str, make: Callable[[Path], None]
) -> None:
    opened = Bundle.open(path)
    name = name_of(path)
    place = path / (name if which == "file" else "manifest.json")
    place.unlink()
    make(place)
    error = refusal((lambda: opened.file(name)) if which == "file" else (lambda: Bundle.open(path)))
    assert error.code == "unsafe-file" and "regular" in error.what


@pytest.mark.parametrize("how", ["link", "hard link"])
def test_a_manifest_that_lies_elsewhere(path: Path, outside: Path, how: str) -> None:
    (path / "manifest.json").rename(outside / "manifest.json")
    (os.symlink if how == "link" else os.link)(outside / "manifest.json", path / "manifest.json")
    assert refusal(lambda: Bundle.open(path)).code == "unsafe-file"


def test_a_manifest_without_end_is_not_read_to_its_end(path: Path) -> None:
    with (path / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: it takes no room, but reading it would take forever
    error = refusal(lambda: Bundle.open(path))
    assert error.code == "bad-manifest" and "bytes" in error.what


@pytest.mark.parametrize("at", [0, 5, -1])
def test_one_flipped_bit(path: Path, at: int) -> None:
    name = name_of(path)
    data = bytearray((path / name).read_bytes())
    data[at] ^= 0x10
    (path / name).write_bytes(data)
    opened = Bundle.open(path)
    for use in (opened.file, opened.read):
        error = refusal(lambda use=use: use(name))
        assert error.code == "digest-mismatch"
        assert opened.manifest.files[name].sha256 in error.what and "found sha256" in error.what


@pytest.mark.parametrize("data", [b"", SECRET[:-1], SECRET + b"\0"])
def test_another_length(path: Path, data: bytes) -> None:
    name = name_of(path)
    (path / name).write_bytes(data)
    for use in (Bundle.open(path).file, Bundle.open(path).read):
        assert refusal(lambda use=use: use(name)).code == "digest-mismatch"


def test_a_file_without_end_is_read_no_further_than_declared(path: Path) -> None:
    name = name_of(path)
    with (path / name).open("r+b") as file:
        file.truncate(1 << 40)
    for use in (Bundle.open(path).file, Bundle.open(path).read):
        assert refusal(lambda use=use: use(name)).code == "digest-mismatch"


def test_a_file_declared_larger_than_memory_is_not_read_into_it(path: Path) -> None:
    name = name_of(path)
    text = json.loads((path / "manifest.json").read_text())
    text["files"][name]["bytes"] = 1 << 40
    (path / "manifest.json").write_text(json.dumps(text))
    with (path / name).open("r+b") as file:
        file.truncate(1 << 40)
    assert refusal(lambda: Bundle.open(path).read(name)).code == "unsafe-file"


def test_a_file_swapped_after_it_was_checked_is_noticed(path: Path) -> None:
    name = name_of(path)
    opened = Bundle.open(path)
    opened.file(name)
    (path / "other").write_bytes(SECRET[::-1])
    os.replace(path / "other", path / name)
    assert refusal(lambda: opened.file(name)).code == "digest-mismatch"


def test_a_checked_file_is_not_hashed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = name_of(path)
    opened = Bundle.open(path)
    first = opened.file(name)
    monkeypatch.setattr("exporter.bundle.reader.digest_of", lambda *_: pytest.fail("hashed again"))
    assert opened.file(name) == first


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "manifest.json", "graphs/../manifest.json", "graphs/other", "", ".", "USE.md"]
)
def test_what_is_not_declared_is_not_given(path: Path, name: str) -> None:
    (path / "graphs" / "other").write_bytes(b"planted")
    opened = Bundle.open(path)
    for use in (opened.file, opened.read):
        assert refusal(lambda use=use: use(name)).code == "undeclared-file"


def test_a_file_that_is_gone(path: Path) -> None:
    name = name_of(path)
    (path / name).unlink()
    assert refusal(lambda: Bundle.open(path).file(name)).code == "missing-file"


# ---- writing into a bundle that someone prepared


def test_the_user_may_reach_the_bundle_itself_by_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    Bundle.open(tmp_path / "link").check()
    publish(tmp_path / "link", "two").check()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["graphs", "targets", "targets/some"])
def test_writing_through_a_linked_folder(path: Path, outside: Path, name: str) -> None:
    shutil.rmtree(path / name)
    (path / name).symlink_to(outside)
    assert refusal(lambda: publish(path, "two")).code == "unsafe-file"
    assert contents(outside) == {}


@pytest.mark.parametrize("name", ["manifest.json.tmp", "USE.md", "graphs/traced-4d0f0a2f4e21.onnx"])
@pytest.mark.parametrize("how", [os.symlink, os.link])
def test_planted_links_are_not_written_through(path: Path, outside: Path, name: str, how: Callable[..., None]) -> None:
    (outside / "precious").write_bytes(b"precious")
    (path / name).unlink(missing_ok=True)
    how(outside / "precious", path / name)
    publish(path, "two").check()
    assert contents(outside) == {"precious": b"precious"}


def test_a_planted_link_with_the_very_name_of_the_next_file(path: Path, outside: Path) -> None:
    two = path.with_name("two.bundle")
    name = publish(two, "two").manifest.graphs["step"].traced
    for how in (os.symlink, os.link):
        (outside / "precious").write_bytes(b"precious")
        (path / name).unlink(missing_ok=True)
        how(outside / "precious", path / name)
        publish(path, "two").check()
        assert (outside / "precious").read_bytes() == b"precious"
        publish(path, "one")


@pytest.mark.parametrize("target", ["precious", ""])
def test_removing_leftovers_follows_no_link(path: Path, outside: Path, target: str) -> None:
    (outside / "precious").mkdir()
    (outside / "precious" / "model-0123456789ab.onnx").write_bytes(b"precious")
    before = contents(outside)
    (path / ".work-1").symlink_to(outside / target)
    (path / "linked").symlink_to(outside / target)
    (path / ".work-2").mkdir()
    (path / ".work-2" / "linked").symlink_to(outside / target)
    publish(path, "two").check()
    assert contents(outside) == before
    assert not (path / ".work-1").is_symlink() and not (path / ".work-2").exists()


@pytest.mark.parametrize("make", [pipe, folder, "link", "hard link", "dangling"])
def test_a_lock_that_is_no_lock_file(path: Path, outside: Path, make: Callable[[Path], None] | str) -> None:
    (outside / "precious").write_bytes(b"precious")
    lock = path / ".lock"
    if make == "hard link":
        os.link(outside / "precious", lock)
    elif make == "link":
        lock.symlink_to(outside / "precious")
    elif make == "dangling":
        lock.symlink_to(outside / "new")
    else:
        assert callable(make)
        make(lock)

    def edit() -> None:
        with editing(path, "x"):
            pytest.fail("entered")

    assert refusal(edit).code == "unsafe-file"
    assert contents(outside) == {"precious": b"precious"}


# ---- graphs that name other files


def with_graph(path: Path, location: str, data: bytes = bytes(128)) -> str:
    """A bundle whose traced graph takes 128 bytes from a file of that name, and has ``data`` beside it."""
    publish(path, "one")
    with editing(path, "x") as draft:
        assert draft.old is not None
        source = draft.work / "g.onnx"
        source.write_bytes(graphs.model(graphs.tensor("w", location)).SerializeToString())
        source.with_name("g.onnx.data").write_bytes(data)
        name = draft.add_graph(source, "graphs/traced.onnx")
        held = draft.old.manifest
        graph = dataclasses.replace(held.graphs["step"], traced=name)
        draft.commit(dataclasses.replace(held, graphs={"step": graph}))
    return name


def test_a_graph_opens_with_its_own_data(path: Path) -> None:
    name = with_graph(path, "g.onnx.data")
    assert set(Bundle.open(path).manifest.files) >= {name, f"{name}.data"}
    assert Bundle.open(path).file(name).with_name("g.onnx.data").read_bytes() == bytes(128)


@pytest.mark.parametrize("location", ["../../../outside/secret", "planted", "../planted", "secret"])
def test_a_graph_that_names_another_file_is_not_given_out(path: Path, outside: Path, location: str) -> None:
    (outside / "secret").write_bytes(bytes(128))
    name = with_graph(path, location)
    (path / name).with_name("planted").write_bytes(bytes(128))
    (path / "graphs" / "planted").write_bytes(bytes(128))
    (path / name).with_name("secret").symlink_to(outside / "secret")
    error = refusal(lambda: Bundle.open(path).file(name))
    assert error.code == "bad-external-data" and "'w'" in error.what


def test_data_too_short_for_its_graph_is_refused(path: Path) -> None:
    name = with_graph(path, "g.onnx.data", bytes(127))
    assert "has 127" in refusal(lambda: Bundle.open(path).file(name)).what


@pytest.mark.parametrize(
    "change", [lambda p: p.write_bytes(b"x" * 128), lambda p: p.write_bytes(bytes(100)), Path.unlink]
)
def test_data_that_is_not_what_was_published(path: Path, change: Callable[[Path], object]) -> None:
    name = with_graph(path, "g.onnx.data")
    bundle = Bundle.open(path)
    bundle.file(name)
    change(path / f"{name}.data")
    for opened in (bundle, Bundle.open(path)):  # the second look is as close as the first
        assert refusal(lambda opened=opened: opened.file(name)).code in ("digest-mismatch", "missing-file")
