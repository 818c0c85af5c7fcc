"""Exports that take what earlier ones made, and the command that shows and prunes it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli_fakes.tool import SITE, Ended, assert_whole, contents, run

GRAPH = ("trace", "reference", "simplify", "verify traced", "verify simplified")


class User:
    """Exports with a cache of their own."""

    def __init__(self, place: Path) -> None:
        self.place, self.cache = place, place / "cache" / "exporter" / "stages"
        self.env = {"XDG_CACHE_HOME": str(place / "cache"), "EXPORTER_CACHE_MB": None}

    def run(self, *words: object) -> Ended:
        return run(*words, cwd=self.place, env=self.env)

    def export(self, bundle: str, *words: object, target: str = "fake-good", model: str = "tiny") -> Any:
        """The object of an export that passed."""
        found = self.run(target, model, "-o", bundle, "--no-profile", "--json", *words)
        assert found.code == 0, found
        return found.json

    def listed(self, *words: object) -> Any:
        found = self.run("cache", "--json", *words)
        assert found.code == 0 and found.json["schema"] == "exporter.cache/1", found
        return found.json


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> User:
    """Somebody who exported ``first.bundle``."""
    user = User(tmp_path_factory.mktemp("before"))
    assert reused(user.export("first.bundle")) == set()
    return user


@pytest.fixture
def user(before: User, tmp_path: Path) -> User:
    """The same, in a copy of the folder."""
    shutil.copytree(before.place, tmp_path, dirs_exist_ok=True)
    return User(tmp_path)


def reused(exported: Any) -> set[str]:
    return {stage["stage"] for stage in exported["stages"] if stage["cached"]}


def timeless(bundle: Path) -> dict[str, Any]:
    """Everything that a bundle holds but its reports, which have times in them."""
    assert_whole(bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"] = {name: info for name, info in manifest["files"].items() if not name.startswith("reports/")}
    manifest["reports"] = sorted(manifest["reports"])
    files = {name: content for name, content in contents(bundle).items() if not name.startswith("reports/")}
    modes = {name: os.stat(bundle / name).st_mode for name in files}
    return {**files, "manifest.json": manifest, "USE.md": "", "modes": modes}


@pytest.mark.parametrize("model", ["tiny", pytest.param("tiny-loop", marks=pytest.mark.slow)])
def test_from_the_cache_comes_what_would_be_made_anew(model: str, user: User) -> None:
    np.savez(user.place / "in.npz", x=np.linspace(-1, 1, 28, dtype=np.float32).reshape(7, 4))
    words = ("--samples", "in.npz", "--seed", 3)
    made = user.export("made.bundle", *words, model=model)
    taken = user.export("taken.bundle", *words, model=model)
    kept = contents(user.cache)
    anew = user.export("anew.bundle", *words, "--no-cache", model=model)
    assert [reused(found) for found in (made, taken, anew)] == [set(), set(GRAPH), set()]
    assert contents(user.cache) == kept, "--no-cache keeps nothing either"
    same = timeless(user.place / "made.bundle")
    assert timeless(user.place / "taken.bundle") == same == timeless(user.place / "anew.bundle")
    assert made["verify"]["hops"] == taken["verify"]["hops"] == anew["verify"]["hops"]
    assert made["verify"]["results"] == taken["verify"]["results"], "measured once, judged every time"


def test_a_graph_in_two_files_comes_with_both(user: User) -> None:
    user.env["EXPORTER_EXTERNAL_FROM"] = str(1 << 20)
    words = ("--set", "mebibytes=16")
    user.export("made.bundle", *words, model="large", target="mobile")
    assert reused(user.export("taken.bundle", *words, model="large", target="mobile")) == set(GRAPH)
    same = timeless(user.place / "made.bundle")
    assert timeless(user.place / "taken.bundle") == same
    assert [name for name in same if name.startswith("graphs/traced") and name.endswith(".onnx.data")]


@pytest.mark.slow
def test_another_target_in_another_bundle(user: User) -> None:
    assert reused(user.export("second.bundle", target="mobile")) == set(GRAPH)
    said = user.run("mobile", "tiny", "-o", "third.bundle", "--no-profile")
    assert "trace reused, reference reused, simplify reused, verify traced reused" in said.out
    assert "trace ..." not in said.err and "compile ..." in said.err
    # A lower precision is of the same graph.
    assert reused(user.export("fourth.bundle", "--precision", "fp16", target="mobile")) == set(GRAPH)


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (("--seed", 1), set()),
        *(pytest.param(words, set(), marks=pytest.mark.slow) for words in [("--dim", "T=2:4:9"), ("--set", "width=6")]),
        # The runtime that runs graphs here is asked for threads; what is made without it is the same.
        (("--threads", 1), {"trace", "reference"}),
    ],
)  # fmt: skip
def test_of_another_model_nothing_is_taken(words: tuple[object, ...], again: set[str], user: User) -> None:
    assert reused(user.export("second.bundle", *words)) == again


def test_other_code_of_the_definition(user: User) -> None:
    """The fakes, changed by a comment."""
    site = Path(shutil.copytree(SITE, user.place / "site"))
    user.env["PYTHONPATH"] = str(site)
    assert reused(user.export("second.bundle")) == set(GRAPH)
    with (site / "exporter_fakes.py").open("a") as file:
        file.write("# another line\n")
    assert reused(user.export("third.bundle")) == set()


def test_what_is_damaged_is_made_again(user: User) -> None:
    for entry in user.cache.iterdir():
        for path in entry.rglob("*.onnx"):
            path.write_bytes(b"no graph")
    assert reused(user.export("second.bundle")) == {"reference", "verify traced", "verify simplified"}
    assert timeless(user.place / "second.bundle") == timeless(user.place / "first.bundle")
    assert not [entry["problem"] for entry in user.listed()["entries"] if entry["problem"]]


@pytest.mark.parametrize("how", ["a file", "others write"])
def test_a_cache_that_cannot_be_used_costs_time_only(how: str, user: User) -> None:
    if how == "a file":
        shutil.rmtree(user.place / "cache")
        (user.place / "cache").write_bytes(b"")
    else:
        user.cache.chmod(0o777)
    assert reused(user.export("second.bundle")) == set()
    listed = user.listed()
    assert how == "a file" or "others than its owner" in listed["problem"]
    assert how == "a file" or "not used" in user.run("cache").out


def test_listed_and_pruned(user: User) -> None:
    found = user.listed()
    assert {entry["stage"] for entry in found["entries"]} == set(GRAPH)
    assert all(entry["model"] == "tiny" and entry["problem"] is None for entry in found["entries"])
    assert found["bytes"] == sum(entry["bytes"] for entry in found["entries"]) > 0
    assert found["folder"] == str(user.cache) and found["pruned"] is None and found["limit_bytes"] == 4 << 30
    said = user.run("cache")
    assert said.code == 0 and said.err == ""
    assert [line.split()[0] for line in said.out.splitlines()] == ["model", *["tiny"] * 5, "cache"]
    assert user.listed("--prune")["pruned"] == {"entries": 0, "bytes": 0}
    assert user.listed("--prune", "--older-than", "7d")["pruned"]["entries"] == 0
    last = user.listed("--prune", "--max-size", "12K")
    assert 0 < last["pruned"]["entries"] < 5 and last["bytes"] <= 12 << 10
    said = user.run("cache", "--prune", "--all")
    assert said.code == 0 and said.out.startswith("removed  ")
    assert contents(user.cache) == {}
    shutil.rmtree(user.cache)
    assert user.listed()["entries"] == [] and not user.cache.exists(), "looking makes nothing"


def test_refused(user: User) -> None:
    before = contents(user.cache)
    assert "--prune" in user.run("cache", "--all").refused("bad-option")
    for words in (("--older-than", "soon"), ("--max-size", "much")):
        said = user.run("cache", "--prune", *words).refused("bad-option")
        assert " ".join(words) in said
        assert json.loads(user.run("cache", *words, "--json").out)["code"] == "bad-option"
    user.env["EXPORTER_CACHE_MB"] = "lots"
    assert "EXPORTER_CACHE_MB=lots" in user.run("cache").refused("bad-option")
    user.run("fake-good", "tiny", "-o", "second.bundle").refused("bad-option")
    assert contents(user.cache) == before and not (user.place / "second.bundle").exists()


def test_a_bound_of_nothing_is_no_cache(user: User) -> None:
    user.env["EXPORTER_CACHE_MB"] = "0"
    kept = contents(user.cache)
    assert reused(user.export("second.bundle")) == set() and contents(user.cache) == kept
