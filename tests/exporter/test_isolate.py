"""What a child gives back, and what it cannot do to its parent when it behaves."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from exporter import isolate
from exporter.errors import ExporterError, Incomplete, NotProven, Refused, StageFailed
from exporter.isolate import Limits, call, start
from exporter.verdict import Verdict

CHILDREN = "tests.attacks.children"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "child.log"


def run(name: str, request: dict, log: Path, seconds: float = 20, **more) -> isolate.Outcome:
    return call(f"{CHILDREN}:{name}", request, limits=Limits(seconds), log=log, stage="stage", **more)


def test_a_value_comes_back(log: Path) -> None:
    request = {"text": "ä\n", "number": 1.5, "list": [None, True]}
    outcome = run("echo", request, log)
    assert outcome.require() == request
    assert (outcome.verdict, outcome.error, outcome.reason) == (Verdict.PASS, None, None)
    assert outcome.peak_rss_bytes > 1 << 20
    assert isolate.live() == ()


def test_starting_is_cheap(log: Path) -> None:
    took = []
    for _ in range(5):
        began = time.monotonic()
        run("echo", {}, log).require()
        took.append(time.monotonic() - began)
    assert min(took) < 0.3  # about 0.05 s on an idle machine; the bound is for busy ones


def test_large_messages_pass_both_ways(log: Path) -> None:
    size = 3 << 20
    assert len(run("large", {"size": size}, log).require()) == size
    assert run("echo", {"text": "y" * size}, log).require() == {"text": "y" * size}


def test_the_folder_the_user_stands_in_shadows_nothing(tmp_path: Path, log: Path, monkeypatch) -> None:
    (tmp_path / "exporter").mkdir()
    (tmp_path / "exporter" / "__init__.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    seen = run("identity", {}, log).require()
    assert seen["file"] == isolate.__file__
    assert "" not in seen["path"] and str(tmp_path) not in seen["path"]


def test_variables_are_added(log: Path, monkeypatch) -> None:
    monkeypatch.setenv("KEPT", "old")
    assert run("variable", {"name": "ADDED"}, log, env={"ADDED": "new"}).require() == "new"
    assert run("variable", {"name": "KEPT"}, log, env={"ADDED": "new"}).require() == "old"


def test_events_come_in_order_and_none_is_lost(log: Path) -> None:
    seen: list[int] = []
    outcome = run("counted", {"count": 2000}, log, on_event=lambda event: seen.append(event["number"]))
    assert outcome.require() == "done"
    assert seen == list(range(2000))


def test_output_goes_to_the_log_and_forges_nothing(log: Path) -> None:
    assert run("noise", {}, log).require() == "genuine"
    text = log.read_text()
    for part in ("forged", "forged below Python", "half a line", "to the error stream", "a grandchild"):
        assert part in text


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [(Refused, Verdict.INVALID), (NotProven, Verdict.FAIL), (Incomplete, Verdict.SKIPPED)],
)
def test_an_error_of_ours_keeps_its_class_and_parts(kind: type[ExporterError], verdict: Verdict, log: Path) -> None:
    outcome = run("refuse", {"kind": kind.__name__}, log)
    assert type(outcome.error) is kind
    assert outcome.error.as_json() == kind("some-code", "what", where="where", why="why", next="next").as_json()
    assert outcome.verdict is verdict
    with pytest.raises(kind):
        outcome.require()


def test_any_other_exception_is_named_and_its_traceback_logged(log: Path) -> None:
    outcome = run("raise_value_error", {}, log)
    assert isinstance(outcome.error, StageFailed)
    assert (outcome.error.code, outcome.verdict) == ("stage-failed", Verdict.CRASHED)
    assert "ValueError" in outcome.error.what and "42" in outcome.error.what
    assert str(log) in outcome.error.where
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("name", ["not_json", "absent", "leave_politely"])
def test_no_value_is_no_success(name: str, log: Path) -> None:
    outcome = run(name, {}, log)
    assert outcome.error is not None and outcome.error.code == "stage-failed"
    assert outcome.verdict is Verdict.CRASHED


@pytest.mark.parametrize("name", ["raise_memory_error", "raise_allocator_error"])
def test_running_out_of_memory_inside_is_named(name: str, log: Path) -> None:
    outcome = run(name, {}, log)
    assert outcome.error is not None and outcome.error.code == "stage-out-of-memory"
    assert outcome.verdict is Verdict.CRASHED


def test_peak_memory_is_the_childs_own(log: Path) -> None:
    # Between fork and exec a child counts its parent's pages; they must not show up in its figure.
    ballast = bytearray(b"x" * (400 << 20))
    small = run("echo", {}, log).peak_rss_bytes
    large = run("peak", {"bytes": 200 << 20}, log).peak_rss_bytes
    assert small < 100 << 20 < 200 << 20 <= large < 300 << 20
    del ballast


def test_a_conversation(log: Path) -> None:
    with start(f"{CHILDREN}:talk", {}, limits=Limits(20), log=log, stage="talk") as child:
        for number, total in ((1, 1), (2, 3), (3, 6)):
            child.send(number)
            assert child.receive(10) == total
        assert child.result().require() == 6
    assert child.receive() is None


def test_leaving_the_block_ends_the_child(log: Path) -> None:
    with start(f"{CHILDREN}:talk", {}, limits=Limits(20), log=log, stage="talk") as child:
        child.send(1)
        assert child.receive(10) == 1
    assert child.result().require() == 1
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_an_answer_that_does_not_come_ends_the_child(log: Path) -> None:
    with start(f"{CHILDREN}:talk", {}, limits=Limits(20), log=log, stage="talk") as child:
        with pytest.raises(StageFailed) as caught:
            child.receive(0.2)
        assert caught.value.code == "stage-timed-out"
        assert child.result().verdict is Verdict.TIMED_OUT


def test_a_paused_child_stands_still_and_its_time_does_not_count(log: Path) -> None:
    with start(f"{CHILDREN}:tick", {}, limits=Limits(2.0), log=log, stage="tick") as child:
        assert child.receive(10)
        child.pause()
        paused = time.monotonic()
        time.sleep(2.2)  # more than its limit
        resumed = time.monotonic()
        child.resume()
        ticks = [child.receive(10) for _ in range(5)]
        while ticks[-1] < resumed:
            ticks.append(child.receive(10))
        assert not [tick for tick in ticks if paused + 0.005 < tick < resumed - 0.005]
        outcome = child.result()
    assert outcome.require() == "stopped"
    assert outcome.seconds < 2.0


def test_pausing_and_killing_in_any_order(log: Path) -> None:
    with start(f"{CHILDREN}:tick", {}, limits=Limits(20), log=log, stage="tick") as child:
        child.pause()
        child.pause()
        child.kill()
        child.resume()
        child.pause()
        child.kill()
        child.close()
    assert child.result().reason == "CRASHED(killed)"


def test_several_children_at_once(log: Path) -> None:
    children = [
        start(f"{CHILDREN}:talk", {}, limits=Limits(20), log=log.with_name(f"{n}.log"), stage=f"talk {n}")
        for n in range(4)
    ]
    for number, child in enumerate(children):
        child.send(number)
    assert [child.receive(10) for child in reversed(children)] == [3, 2, 1, 0]
    assert [child.result().require() for child in children] == [0, 1, 2, 3]


def test_one_childs_death_leaves_the_others(log: Path) -> None:
    with (
        start(f"{CHILDREN}:talk", {}, limits=Limits(20), log=log, stage="talk") as sound,
        start(f"{CHILDREN}:abort", {}, limits=Limits(20), log=log.with_name("b.log"), stage="abort") as broken,
    ):
        assert broken.result().reason == "CRASHED(SIGABRT)"
        sound.send(5)
        assert sound.receive(10) == 5


def test_kill_all_leaves_no_child(log: Path) -> None:
    children = [
        start(f"{CHILDREN}:hang", {}, limits=Limits(60), log=log.with_name(f"{n}.log"), stage="hang") for n in range(2)
    ]
    pids = [pid for child in children for pid in child.receive(10).values()]
    isolate.kill_all()
    assert isolate.live() == ()
    assert all(is_gone(pid) for pid in pids)


def test_no_descriptor_is_leaked(log: Path) -> None:
    run("echo", {}, log)
    before = len(os.listdir("/proc/self/fd"))
    for name in ("echo", "abort", "raise_value_error"):
        run(name, {}, log)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_default_limit_is_below_the_machines_memory() -> None:
    limit = Limits().memory_bytes
    assert limit is not None and 0 < limit < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_gone(pid: int, within: float = 3.0) -> bool:
    """Whether a process has ended (a zombie has)."""
    give_up = time.monotonic() + within
    while time.monotonic() < give_up:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False
