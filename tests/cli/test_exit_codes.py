"""The exit code says how a command ended: 0 PASS, 1 not, 2 refused, 3 incomplete, 4 crashed, 70 a mistake of ours."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from exporter.cli import output
from tests.cli_fakes.tool import (
    Ended,
    alive,
    assert_whole,
    contents,
    copied,
    environment,
    exported,
    quick,
    run,
    until,
)

BROKEN = str(Path(__file__).parents[1] / "cli_fakes" / "broken_site")


def export(here: Path, target: str, *more: object, **how: object) -> tuple[Path, Ended]:
    """An export into a copy of a bundle whose graph is made already, so that only the target is at work."""
    bundle = copied(here)
    return bundle, run(target, "tiny", "-o", bundle, "--no-profile", *more, cwd=here, **how)


# ------------------------------------------------------------------------------------------------------ 0 and 1


def test_pass_is_0(tmp_path: Path) -> None:
    bundle, ended = export(tmp_path, "fake-good")
    assert ended.code == 0 and ended.out.startswith("PASS  tiny  seeded weights (seed 0): noise")
    assert_whole(bundle)
    assert quick("verify", bundle, cwd=tmp_path).code == 0


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("fake-liar", "asked for fp32, bf16 ran"),
        ("fake-wrong", "times eager's own"),
        ("fake-nan", "are NaN or infinite"),
    ],
)
def test_fail_is_1(tmp_path: Path, target: str, reason: str) -> None:
    bundle, ended = export(tmp_path, target)
    assert ended.code == 1 and ended.out.startswith("FAIL  tiny") and reason in ended.out
    checked = quick("verify", bundle, "--target", target, "--json", cwd=tmp_path)
    assert checked.code == 1 and checked.json["verdict"] == "FAIL"
    assert quick("verify", bundle, "--target", "fake-good", cwd=tmp_path).code == 0, "the others are as they were"
    both = quick("verify", bundle, "--json", cwd=tmp_path)
    assert both.code == 1
    assert {hop["target"]: hop["verdict"] for hop in both.json["hops"]} == {"fake-good": "PASS", target: "FAIL"}


def test_unsupported_is_1_and_names_every_node(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    before = contents(tmp_path)
    ended = run("fake-unsupported", "tiny", "-o", bundle, cwd=tmp_path)
    said = ended.failed("unsupported", 1)
    assert "2 nodes" in said and "gemm: no matrices here" in said and "add: no sums" in said
    assert contents(tmp_path) == before


# ----------------------------------------------------------------------------------------------------------- 4


@pytest.mark.parametrize(
    ("target", "more", "code", "words"),
    [
        ("fake-segv", [], "stage-crashed", ["compile crashed: SIGSEGV", "exporter_fakes.py"]),
        ("fake-abort", [], "stage-crashed", ["compile crashed: SIGABRT"]),
        ("fake-hang", ["--timeout", "2"], "stage-timed-out", ["compile was stopped after 2 s"]),
        ("fake-hungry", ["--memory", "400"], "stage-out-of-memory", ["its limit is 0.39 GiB"]),
        ("fake-raise", [], "stage-failed", ["RuntimeError: the builder says no: [red]not[/] today"]),
        ("fake-garbage", [], "stage-failed", ["AttributeError"]),
        ("fake-elsewhere", [], "stage-failed", ["never.fake", "target fake-elsewhere"]),
        ("fake-lazy", [], "stage-failed", ["which it did not write", "target fake-lazy"]),
    ],
)
def test_a_compile_that_fails_is_4(tmp_path: Path, target: str, more: list[str], code: str, words: list[str]) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "work").mkdir()
    bundle = copied(tmp_path / "work")
    before = contents(tmp_path / "work")
    started = time.monotonic()
    ended = run(target, "tiny", "-o", bundle, "--no-profile", *more, cwd=tmp_path / "work", env={"FAKES_NOTES": notes})
    said = ended.failed(code, 4)
    assert all(word in said for word in words), said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", ended.err), "what a builder prints must not drive the terminal"
    assert contents(tmp_path / "work") == before, "the old bundle, byte for byte, and no staging"
    assert time.monotonic() - started < 60
    for note in notes.iterdir():
        until(lambda note=note: not alive(int(note.read_text())), 5)
    log = re.search(r"log (\S+)", said)
    if log:  # an error may only name a log that is still there
        assert Path(log[1]).is_file(), said
        Path(log[1]).unlink()
    machine = quick(target, "tiny", "-o", bundle, "--json", *more, cwd=tmp_path / "work")
    assert machine.code == 4 and machine.json["code"] == code and machine.err == ""


def test_a_first_export_that_crashes_leaves_nothing(tmp_path: Path) -> None:
    ended = run("fake-segv", "tiny", cwd=tmp_path, cached=True)
    ended.failed("stage-crashed", 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_target_that_crashes_does_not_stop_the_others(tmp_path: Path) -> None:
    bundle = copied(tmp_path, "tiny", "fake-crashes-later", "fake-good")
    before = contents(bundle)
    ended = run("verify", bundle, "--json", cwd=tmp_path, env={"FAKES_CRASH": "1"})
    assert ended.code == 4 and ended.err == ""
    hops = {hop["target"]: hop for hop in ended.json["hops"]}
    assert {name: hop["verdict"] for name, hop in hops.items()} == {
        "fake-crashes-later": "CRASHED", "fake-good": "PASS",
    }  # fmt: skip
    assert hops["fake-crashes-later"]["reason"] == "CRASHED(SIGSEGV)"
    assert "its last lines: File" in hops["fake-crashes-later"]["facts"]["log"]
    assert ended.json["verdict"] == "CRASHED"
    assert [r["target"] for r in ended.json["results"]] == ["fake-good"] * 8
    plain = run("verify", bundle, cwd=tmp_path, env={"FAKES_CRASH": "1"})
    assert plain.code == 4 and plain.out.startswith("CRASHED  tiny")
    assert "CRASHED compiled fake-crashes-later: CRASHED(SIGSEGV)" in plain.out
    assert contents(bundle) == before


@pytest.mark.slow
def test_a_profile_goes_on_without_the_one_that_crashes(tmp_path: Path) -> None:
    bundle = exported("tiny", "fake-crashes-later", "fake-good")
    ended = run("profile", bundle, "--seconds", 1, "--json", cwd=tmp_path, env={"FAKES_CRASH": "1"})
    verdicts = {s["name"]: s["verdict"] for s in ended.json["subjects"]}
    assert verdicts == {"eager": "PASS", "fake-crashes-later": "CRASHED", "fake-good": "PASS"}
    assert ended.code == 4
    assert [(r["of"], r["to"]) for r in ended.json["ratios"]] == [("fake-good", "eager")]


def test_run_that_crashes_is_4_and_writes_nothing(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "in.npz", x=np.ones((5, 4), np.float32))
    bundle = exported("tiny", "fake-crashes-later", "fake-good")
    arguments = ("run", bundle, "in.npz", "--target", "fake-crashes-later", "-o", "out.npz")
    run(*arguments, cwd=tmp_path, env={"FAKES_CRASH": "1"}).failed("stage-crashed", 4)
    assert [p.name for p in tmp_path.iterdir()] == ["in.npz"]


# ----------------------------------------------------------------------------------------------------------- 3


def test_an_absent_runtime_is_3_until_the_bundle_is_finished_where_it_is(tmp_path: Path) -> None:
    bundle, ended = export(tmp_path, "fake-absent")
    assert ended.code == 3 and ended.out.startswith("SKIPPED  tiny")
    assert "runtime absent: fakeruntime is not installed" in ended.out
    manifest = assert_whole(bundle).manifest
    info = manifest.targets["fake-absent/fp32"]
    assert info.status == "incomplete" and not info.files
    command = f"exporter compile {bundle} --target fake-absent"
    assert info.next == "pip install fakeruntime && exporter compile BUNDLE --target fake-absent"
    assert info.finish(bundle) == f"pip install fakeruntime && {command}"
    assert info.next in (bundle / "USE.md").read_text()
    assert info.finish(bundle) in ended.out + ended.err, "the person at the terminal is told too"

    for words in (("verify", bundle), ("verify", bundle, "--target", "fake-absent")):
        skipped = quick(*words, cwd=tmp_path)
        assert skipped.code == 3 and skipped.out.startswith("SKIPPED"), "what did not run is no PASS"
    profile = quick("profile", bundle, "--target", "fake-absent", "--seconds", 1, cwd=tmp_path)
    assert profile.code == 3
    quick("run", bundle, "x.npz", "--target", "fake-absent", "-o", "y.npz", cwd=tmp_path).failed("runtime-absent", 3)
    before = contents(bundle)
    quick("compile", bundle, "--target", "fake-absent", cwd=tmp_path).failed("runtime-absent", 3)
    assert contents(bundle) == before

    env = {"FAKES_RUNTIME": "present"}
    early = run("verify", bundle, "--target", "fake-absent", cwd=tmp_path, env=env)
    assert early.code == 3 and "not compiled yet" in early.out
    finished = run(*command.split()[1:], "--json", cwd=tmp_path, env=env)
    assert finished.code == 0 and finished.json["verdict"] == "PASS", finished
    assert [hop["target"] for hop in finished.json["verify"]["hops"]] == ["fake-absent"]
    assert assert_whole(bundle).manifest.targets["fake-absent/fp32"].status == "compiled"
    assert run("verify", bundle, cwd=tmp_path, env=env).code == 0


# ---------------------------------------------------------------------------------------------------------- 70


@pytest.mark.parametrize("as_json", [False, True])
def test_a_mistake_of_ours_is_70_with_the_whole_trace_in_a_file(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(**_: object) -> int:
        raise ZeroDivisionError("a mistake of ours")

    assert output.guarded(app, as_json) == 70
    said = capsys.readouterr()
    where = json.loads(said.out)["where"] if as_json else said.err
    assert "ZeroDivisionError: a mistake of ours" in (said.out + said.err)
    log = Path(re.search(r"(\S+\.log)", where)[1])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_a_definition_that_raises_is_named_with_its_line(tmp_path: Path) -> None:
    before = contents(tmp_path)
    said = run("fake-good", "tiny-boom", cwd=tmp_path, env=with_a_broken_target()).failed("broken-model", 3)
    assert "ZeroDivisionError: a mistake in a definition" in said
    assert "exporter_fakes.py" in said
    assert contents(tmp_path) == before
    listed = run("models", "--json", cwd=tmp_path, env=with_a_broken_target())
    assert listed.code == 0
    assert [b["name"] for b in listed.json["broken"]] == ["tiny-boom"]
    assert "gtcrn" in [m["name"] for m in listed.json["models"]]


def with_a_broken_target() -> dict[str, str]:
    return {"PYTHONPATH": environment()["PYTHONPATH"] + ":" + BROKEN}


def test_a_target_that_cannot_be_imported_is_listed_with_its_reason(tmp_path: Path) -> None:
    ended = run("targets", "--json", cwd=tmp_path, env=with_a_broken_target())
    assert ended.code == 0
    (broken,) = [t for t in ended.json["targets"] if t["name"] == "fake-broken"]
    assert not broken["available"] and "libfake.so.7" in broken["reason"]


@pytest.mark.slow
def test_a_target_that_cannot_be_imported_does_not_stop_an_export_for_another(tmp_path: Path) -> None:
    ended = run("fake-good", "tiny", "--no-profile", cwd=tmp_path, env=with_a_broken_target(), cached=True)
    assert ended.code == 0, ended


def test_json_is_one_object_whatever_the_end(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    for arguments, code in (
        (("verify", bundle), 0),
        (("fake-wrong", "tiny", "-o", bundle, "--no-profile"), 1),
        (("fake-good", "tiny", "--dim", "T"), 2),
        (("fake-absent", "tiny", "-o", bundle, "--no-profile"), 3),
        (("fake-abort", "tiny", "-o", bundle), 4),
    ):
        ended = quick(*arguments, "--json", cwd=tmp_path)
        assert ended.code == code and ended.err == "", ended
        assert json.loads(ended.out)["schema"].startswith("exporter.")
