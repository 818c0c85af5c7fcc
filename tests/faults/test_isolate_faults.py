"""A child that crashes, hangs, hoards or dies with its parent: always a verdict, never a success, never an orphan."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from exporter import isolate
from exporter.errors import StageFailed
from exporter.isolate import Limits, call, parent, start
from exporter.verdict import Verdict

CHILDREN = "tests.attacks.children"
ROOT = isolate.ROOT


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


def run(name: str, log: Path, request: dict | None = None, limits: Limits | None = None, **more) -> isolate.Outcome:
    return call(f"{CHILDREN}:{name}", request or {}, limits=limits or Limits(20), log=log, stage="compile x", **more)


@pytest.mark.parametrize(
    ("name", "request_", "reason", "code"),
    [
        ("segfault", {}, "CRASHED(SIGSEGV)", "stage-crashed"),
        ("abort", {}, "CRASHED(SIGABRT)", "stage-crashed"),
        ("vanish", {"code": 0}, "CRASHED(exited without a result)", "stage-crashed"),
        ("vanish", {"code": 7}, "CRASHED(exit code 7)", "stage-crashed"),
        ("sent_then_vanish", {}, "CRASHED(exit code 3)", "stage-crashed"),
        ("kill_self", {}, "CRASHED(SIGKILL)", "stage-out-of-memory"),
        ("garble", {}, "CRASHED(protocol)", "stage-crashed"),
    ],
)
def test_every_death_is_a_verdict(name: str, request_: dict, reason: str, code: str, log: Path) -> None:
    outcome = run(name, log, request_)
    assert outcome.verdict is Verdict.CRASHED
    assert outcome.reason == reason
    assert isinstance(outcome.error, StageFailed) and outcome.error.code == code
    assert outcome.value is None
    assert "compile x" in outcome.error.what and str(log) in outcome.error.where and outcome.error.next


def test_the_error_holds_the_last_lines_but_no_terminal_codes(log: Path) -> None:
    outcome = run("segfault", log)
    assert outcome.error is not None
    assert "about to fall" in outcome.error.why and "\x1b" not in outcome.error.why
    assert "Segmentation fault" in outcome.error.why  # where it fell, in the words of faulthandler


def test_the_lines_of_an_earlier_child_are_not_blamed_on_this_one(log: Path) -> None:
    log.write_text("a line of an earlier child\n")
    outcome = run("vanish", log, {"code": 1})
    assert outcome.error is not None and outcome.error.why == "it left nothing in its log"
    assert log.read_text() == "a line of an earlier child\n"


def test_closing_a_child_that_does_not_end_kills_it(log: Path, monkeypatch) -> None:
    monkeypatch.setattr(parent, "CLOSE_SECONDS", 0.3)
    child = start(f"{CHILDREN}:hang", {}, limits=Limits(60), log=log, stage="hang")
    pids = child.receive(10)
    child.close()
    assert all(is_gone(pid, within=1) for pid in pids.values())
    assert child.result().verdict is Verdict.CRASHED


def test_a_hang_that_ignores_sigterm_is_ended_with_all_it_started(log: Path) -> None:
    seen: list[dict[str, int]] = []
    began = time.monotonic()
    outcome = run("hang", log, limits=Limits(1.0), on_event=seen.append)
    assert time.monotonic() - began < 5
    assert outcome.verdict is Verdict.TIMED_OUT
    assert outcome.error is not None and outcome.error.code == "stage-timed-out"
    assert all(is_gone(pid) for pid in seen[0].values())


def test_a_hang_is_ended_while_the_parent_is_busy(log: Path) -> None:
    with start(f"{CHILDREN}:hang", {}, limits=Limits(0.8), log=log, stage="hang") as child:
        pids = child.receive(10)
        time.sleep(2)  # the parent looks elsewhere
        assert all(is_gone(pid, within=0) for pid in pids.values())
        with pytest.raises(StageFailed) as caught:
            child.receive(5)
        assert caught.value.code == "stage-timed-out"


@pytest.mark.parametrize("name", ["hog", "hog_in_a_grandchild"])
def test_memory_is_limited_for_the_whole_group(name: str, log: Path) -> None:
    outcome = run(name, log, limits=Limits(15, memory_bytes=200 << 20))
    assert outcome.verdict is Verdict.CRASHED
    assert outcome.reason == "CRASHED(out of memory)"
    assert outcome.error is not None and outcome.error.code == "stage-out-of-memory"
    assert outcome.peak_rss_bytes > 200 << 20


def test_sending_to_a_dead_child_tells_how_it_died(log: Path) -> None:
    with start(f"{CHILDREN}:abort", {}, limits=Limits(20), log=log, stage="abort") as child:
        with pytest.raises(StageFailed, match="SIGABRT"):
            for _ in range(2000):
                child.send("x" * 1000)
                time.sleep(0.001)


def test_sending_to_a_child_that_never_reads_ends_with_its_limit(log: Path) -> None:
    with start(f"{CHILDREN}:hang", {}, limits=Limits(1.0), log=log, stage="hang") as child:
        with pytest.raises(StageFailed) as caught:
            child.send("x" * (4 << 20))
    assert caught.value.code == "stage-timed-out"


def test_a_parent_killed_with_9_takes_the_child_along(log: Path) -> None:
    script = f"from tests.attacks.children import parent_of_a_hang; parent_of_a_hang({str(log)!r})"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not is_gone(pid, within=0, end=False)
    parent.kill()
    parent.wait()
    assert is_gone(pid)
    parent.stdout.close()


def test_ctrl_c_ends_the_children_and_goes_on(log: Path) -> None:
    pids: list[int] = []

    def interrupt(event: dict[str, int]) -> None:
        pids.extend(event.values())
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        run("hang", log, on_event=interrupt)
    assert len(pids) == 2 and all(is_gone(pid) for pid in pids)
    assert isolate.live() == ()


def test_an_error_in_the_callers_code_ends_the_child_and_goes_on(log: Path) -> None:
    def fail(event: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("hang", log, on_event=fail)
    assert isolate.live() == ()


def test_ctrl_c_of_the_terminal_does_not_reach_the_child_first(log: Path) -> None:
    with start(f"{CHILDREN}:talk", {}, limits=Limits(20), log=log, stage="talk") as child:
        assert os.getpgid(child.pid) == child.pid != os.getpgrp()
        assert os.getsid(child.pid) == child.pid


def test_a_message_without_end_is_cut_off(log: Path, monkeypatch) -> None:
    monkeypatch.setattr(parent, "LONGEST_LINE", 1 << 20)
    outcome = run("large", log, {"size": 8 << 20})
    assert outcome.reason == "CRASHED(protocol)"


def test_a_child_writes_no_core_file_and_hands_down_no_pipe(log: Path) -> None:
    assert run("limits_inside", log).require() == {"core": [0, 0], "inherited": []}


def test_what_a_child_started_ends_with_it(log: Path) -> None:
    began = time.monotonic()
    assert is_gone(run("leave_a_grandchild", log).require())
    assert time.monotonic() - began < 5


def test_no_thread_outlives_its_child(log: Path) -> None:
    run("echo", log)
    give_up = time.monotonic() + 3
    while time.monotonic() < give_up and any(re.match("limits of", t.name) for t in threading.enumerate()):
        time.sleep(0.02)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("limits of")]


def is_gone(pid: int, within: float = 3.0, end: bool = True) -> bool:
    """Whether a process has ended (a zombie has)."""
    give_up = time.monotonic() + within
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        if time.monotonic() >= give_up:
            break
        time.sleep(0.02)
    if end:
        os.kill(pid, signal.SIGKILL)
    return False
