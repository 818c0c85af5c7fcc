"""A stage is run once for all that it depends on, and run again when any of it is another."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter import folders
from exporter.cache import Cache, Call, Reusing
from exporter.isolate import Limits, Outcome, live
from exporter.stages import silent
from tests.cli_fakes.tool import contents

FUNCTION, HANGS = "tests.fakes.stages:doubled", "tests.attacks.children:hang"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the stage ran."""
    file = tmp_path / "notes.txt"
    monkeypatch.setenv("NOTES", str(file))
    return lambda: len(file.read_text().splitlines()) if file.exists() else 0


class Bench:
    """Runs of one export after another, each with a work folder of its own."""

    def __init__(self, place: Path) -> None:
        self.place, self.count = place, 0
        self.cache: Cache | None = Cache(place / "stages")

    def stages(self, around: Mapping[str, Any] | None = None) -> Reusing:
        """Stages of another export; ``around`` may change while they run."""
        self.count += 1
        work = self.place / f"bundle-{self.count}" / f".work-{self.count}"
        work.mkdir(parents=True)
        (work / "given.txt").write_text("given")
        limits = Limits(seconds=60.0)
        return Reusing(
            work / "logs", limits, silent, work=work, cache=self.cache, model="m", around=lambda: around or {}
        )

    def run(self, around: Mapping[str, Any] | None = None, **more: Any) -> tuple[Reusing, Outcome]:
        stages = self.stages(around)
        return stages, stages.attempt("double", FUNCTION, self.request(stages, **more))

    def request(self, stages: Reusing, **more: Any) -> dict[str, Any]:
        places = {"read": "given.txt", "write": "written.txt", "folder": "folder"}
        return {"say": "hello", **{name: str(stages.work / place) for name, place in places.items()}, **more}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def products(stages: Reusing) -> dict[str, object]:
    return {name: content for name, content in contents(stages.work).items() if not name.startswith("logs")}


def test_the_second_time_it_is_taken(bench: Bench, notes: Callable[[], int]) -> None:
    (first, made), (second, taken) = bench.run(), bench.run()
    assert notes() == 1
    assert [stage.cached for stage in (*first.done, *second.done)] == [False, True]
    assert products(first) == products(second) and len(products(first)) == 5
    assert taken.value == {**made.value, "files": [{"file": str(second.work / "written.txt")},
                                                   {"file": str(second.work / "folder/inside/more.txt")}]}  # fmt: skip
    assert taken.require() and not taken.log.exists()


def other(stages: Reusing) -> dict[str, Any]:
    (stages.work / "given.txt").write_text("another")
    return {}


@pytest.mark.parametrize(
    "change",
    [
        other,
        lambda stages: {"say": "another"},
        lambda stages: {"more": None},
        lambda stages: {"write": str(stages.work / "elsewhere.txt")},
        lambda stages: setattr(stages, "around", lambda: {"code": "another"}) or {},
        lambda stages: {"more": str(stages.work.parent.parent / "weights.pt")},
    ],
    ids=["what is read", "what is said", "what more is said", "where it is written", "what lies around", "a file"],
)
def test_each_thing_that_it_depends_on_makes_it_run(
    change: Callable[[Reusing], dict[str, Any]], bench: Bench, notes: Callable[[], int]
) -> None:
    (bench.place / "weights.pt").write_text("weights")
    bench.run()
    stages = bench.stages()
    request = bench.request(stages) | change(stages)
    assert stages.attempt("double", FUNCTION, request).error is None and notes() == 2
    (bench.place / "weights.pt").write_text("other weights")
    again = bench.stages(stages.around())
    if "weights.pt" in str(request.get("more")):
        assert again.attempt("double", FUNCTION, bench.request(again, more=request["more"])).error is None
        assert notes() == 3, "a file outside is known by what is in it"
    bench.run()
    assert notes() == 2 + ("weights.pt" in str(request.get("more"))), "the first is still there"


def test_a_file_that_an_option_names_is_known_wherever_it_lies(
    bench: Bench, notes: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two", "three"):
        (bench.place / folder).mkdir()
        (bench.place / folder / "backbone.pt").write_text("other" if folder == "three" else "the same")
        bench.run(more=str(bench.place / folder / "backbone.pt"))
        monkeypatch.chdir(bench.place / folder)
        bench.run(more="backbone.pt")
    assert notes() == 2


def test_a_folder_that_an_option_names_is_not_known(
    bench: Bench, notes: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stage reads of it nobody can tell; a word that happens to be a folder's name here is a word."""
    (bench.place / "denoise").mkdir()
    monkeypatch.chdir(bench.place)
    for _ in range(2):
        bench.run(more=str(bench.place / "denoise"))
    assert notes() == 2
    for _ in range(2):
        bench.run(more="denoise")
    assert notes() == 3


@pytest.mark.parametrize("what", ["a file", "code"])
def test_what_changed_while_the_stage_ran_is_not_kept(what: str, bench: Bench, notes: Callable[[], int]) -> None:
    """The stage may have read the one or the other: its product must not stand under the digest of the first."""
    weights = bench.place / "weights.pt"
    for number in (1, 2):
        weights.write_text("weights")
        seen = iter([{"code": "one"}, {"code": "two" if what == "code" else "one"}])
        stages = bench.stages()
        stages.around = lambda seen=seen: next(seen)
        more = {"exchange": str(weights)} if what == "a file" else {}
        assert stages.attempt("double", FUNCTION, bench.request(stages, **more)).error is None
        assert notes() == number
    assert not (bench.place / "stages").exists()


def test_a_graph_in_two_files_is_one(bench: Bench, notes: Callable[[], int]) -> None:
    """A request names the graph alone; its weights lie beside it."""

    def run(weights: str) -> Reusing:
        stages = bench.stages()
        for name, content in (("given.onnx", "graph"), ("given.onnx.data", weights)):
            (stages.work / name).write_text(content)
        request = bench.request(stages, read=str(stages.work / "given.onnx"), write=str(stages.work / "written.onnx"))
        assert stages.attempt("double", FUNCTION, request).error is None
        return stages

    first, second = run("weights"), run("weights")
    assert notes() == 1 and second.done[0].cached
    assert products(first) == products(second) and "written.onnx.data" in products(second)
    run("other weights")
    assert notes() == 2


def test_what_failed_is_not_kept(bench: Bench, notes: Callable[[], int]) -> None:
    for _ in range(2):
        stages, outcome = bench.run(fail=True)
        assert outcome.error is not None and not stages.done[0].cached
    assert notes() == 2 and not (bench.place / "stages").exists()


def test_without_a_cache_everything_runs(bench: Bench, notes: Callable[[], int]) -> None:
    bench.cache = None
    bench.run()
    bench.run()
    assert notes() == 2 and not (bench.place / "stages").exists()


@pytest.mark.parametrize("text", ["work:x", "work:../../x"])
def test_a_text_that_looks_like_a_place_is_not_taken_for_one(text: str, bench: Bench, notes: Callable[[], int]) -> None:
    for _ in range(2):
        _, outcome = bench.run(say=text)
        assert outcome.value["said"] == text
    assert notes() == 2


def test_at_once_only_what_is_missing_runs(bench: Bench, notes: Callable[[], int]) -> None:
    said = list[str]()

    def calls(stages: Reusing) -> list[Call]:
        return [Call(name, FUNCTION, bench.request(stages, say=name, write=str(stages.work / name), folder=str(
            stages.work / f"{name}-folder"))) for name in ("one", "two", "three")]  # fmt: skip

    first = bench.stages()
    first.attempt("two", FUNCTION, calls(first)[1].request)
    second = bench.stages()
    second.progress = lambda stage, event: said.append(stage)
    found = second.together(*calls(second))
    assert list(found) == ["one", "two", "three"] and all(outcome.error is None for outcome in found.values())
    assert said[:2] == ["one", "three"] and "two" not in said
    assert {stage.stage: stage.cached for stage in second.done} == {"one": False, "two": True, "three": False}
    assert notes() == 3
    assert all(stage.cached for stage in [*_done(bench.stages(), calls)]) and notes() == 3


def test_who_ends_one_of_several_ends_all(bench: Bench) -> None:
    """Ctrl-C while a reference is computed does not wait for the trace beside it."""
    stages, begun = bench.stages(), threading.Event()

    def progress(_: str, event: Mapping[str, Any]) -> None:
        if "pid" not in event:
            return
        if threading.current_thread() is not threading.main_thread():
            begun.set()
        elif begun.wait(30):
            raise KeyboardInterrupt

    stages.progress = progress
    stages.limits = Limits(seconds=50.0)  # what hangs is ended by these at the latest
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        stages.together(Call("beside", HANGS, {}), Call("here", HANGS, {}))
    assert begun.is_set() and time.monotonic() - start < 40 and not live()


def _done(stages: Reusing, calls: Callable[[Reusing], list[Call]]) -> list[Any]:
    stages.together(*calls(stages))
    return stages.done


def test_no_test_uses_the_users_cache() -> None:
    assert os.environ["EXPORTER_CACHE_MB"] == "0"
    assert folders.cache() != Path.home() / ".cache" / "exporter"
