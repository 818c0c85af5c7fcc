"""What ``exporter compare`` prints, writes and ends with, with the fakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from tests.cli_fakes.tool import copied, exported, quick, run
from tests.exporter.comparison.test_side import profiled, verified, written

KEYS = {"schema", "verdict", "exit_code", "strict", "regression", "regressions", "missing", "lacking", "allowed",
        "model", "a", "b", "parity", "latency", "sizes", "layers", "operators", "versions", "facts",
        "notes"}  # fmt: skip


def of_both(folder: Path, name: str, parity: dict[str, Any], latency: dict[str, Any]) -> str:
    """A report of an export, with both parts."""
    return written(folder, {"schema": "exporter.export/1", "verify": parity, "profile": latency}, name)


def test_a_bundle_is_no_different_from_its_copy(tmp_path: Path) -> None:
    ended = quick("compare", exported(), copied(tmp_path), "--stored", "--json", cwd=tmp_path)
    assert ended.code == 0 and ended.err == "" and set(ended.json) == KEYS, ended
    assert ended.json["schema"] == "exporter.compare/1" and ended.json["verdict"] == "no difference shown"
    assert {hop["change"] for hop in ended.json["parity"]} == {"same"}
    (counts,) = ended.json["operators"].values()
    assert counts[0] == counts[1] and sum(counts[0].values()) > 0
    said = quick("compare", exported(), copied(tmp_path / "b"), "--stored", cwd=tmp_path)
    assert said.out.startswith("PASS  no difference shown  tiny: ") and "\x1b" not in said.out


def test_an_artifact_that_got_worse_is_1(tmp_path: Path) -> None:
    """The same name of a target, another way to compute: what a bad change of a target does."""
    bad = verified({**verified()["hops"][0], "verdict": "FAIL", "reason": "off"},
                   results=[{**verified()["results"][0], "verdict": "FAIL", "relative_l2": 0.5}])  # fmt: skip
    a, b = written(tmp_path, verified(), "a.json"), written(tmp_path, bad, "b.json")
    ended = quick("compare", a, b, cwd=tmp_path)
    assert ended.code == 1 and ended.out.startswith("REGRESSION  worse parity  tiny: ")
    assert "compiled fake/fp32 was PASS and is FAIL" in ended.out and "relative L2 0.5" in ended.out
    assert quick("compare", b, a, cwd=tmp_path).code == 0, "the other way round it got better"


@pytest.mark.slow
def test_a_real_artifact_that_got_worse_is_1(tmp_path: Path) -> None:
    """One bundle holds two targets, the other lost one: its results vanished."""
    both = Path(shutil.copytree(exported("tiny", "fake-good", "onnx-reference"), tmp_path / "both.bundle"))
    ended = quick("compare", both, exported(), "--stored", "--json", cwd=tmp_path)
    assert ended.code == 1 and [hop["change"] for hop in ended.json["parity"]].count("gone") == 1
    assert quick("compare", both, exported(), "--stored", "--target", "fake-good", cwd=tmp_path).code == 0
    assert quick("compare", exported(), both, "--stored", cwd=tmp_path).code == 0, "a target more is no regression"


@pytest.mark.parametrize(("asked", "code"), [((), 1), (("--max-slowdown", "60%"), 0), (("--max-slowdown", "0%"), 1)])
def test_a_slow_down_is_1_beyond_what_is_allowed(tmp_path: Path, asked: tuple[str, ...], code: int) -> None:
    a = of_both(tmp_path, "a.json", verified(), profiled(2.0))
    b = of_both(tmp_path, "b.json", verified(), profiled(3.0))
    ended = quick("compare", a, b, "--json", *asked, cwd=tmp_path)
    assert ended.code == code and ended.json["verdict"] == "slower" and ended.json["regression"] is bool(code)
    (timed,) = ended.json["latency"]
    assert timed["how"] == "stored" and timed["ratio"]["value"] == 1.5 and timed["regression"] is bool(code)


def test_other_devices_are_refused_unless_told(tmp_path: Path) -> None:
    a, b = written(tmp_path, profiled(cpu="a"), "a.json"), written(tmp_path, profiled(cpu="b"), "b.json")
    said = quick("compare", a, b, cwd=tmp_path).refused("different-devices")
    assert "a, 2 cores in A" in said and "b, 2 cores in B" in said
    ended = quick("compare", a, b, "--across-devices", "--json", cwd=tmp_path)
    assert ended.code == 0 and "different devices" in " ".join(ended.json["notes"])


def test_verdicts_of_other_devices_are_refused_unless_told(tmp_path: Path) -> None:
    a = written(tmp_path, verified(), "a.json")
    b = written(tmp_path, verified() | {"device": {"label": "pi"}}, "b.json")
    said = quick("compare", a, b, cwd=tmp_path).refused("different-devices")
    assert "verified on the machine of the bundle in A and on pi in B" in said
    ended = quick("compare", a, b, "--across-devices", "--json", cwd=tmp_path)
    assert ended.code == 0 and ended.json["notes"] == ["A was verified on the machine of the bundle, B on pi"]


def test_other_models_are_refused(tmp_path: Path) -> None:
    a, b = written(tmp_path, verified(), "a.json"), written(tmp_path, verified() | {"model": "other"}, "b.json")
    assert "is of other" in quick("compare", a, b, cwd=tmp_path).refused("different-models")


def test_what_is_missing_is_shown_and_is_3_where_it_was_asked_for(tmp_path: Path) -> None:
    a, b = written(tmp_path, verified(), "a.json"), written(tmp_path, verified(), "b.json")
    ended = quick("compare", a, b, cwd=tmp_path)
    assert ended.code == 0 and "missing: latency, neither side was ever profiled" in ended.out
    assert quick("compare", a, b, "--max-slowdown", "5%", cwd=tmp_path).code == 3
    only = written(tmp_path, profiled(), "c.json")
    ended = quick("compare", a, only, cwd=tmp_path)
    assert ended.code == 3 and ended.out.startswith("INCOMPLETE  not compared"), ended


def test_damaged_and_absent_sides_are_refused(tmp_path: Path) -> None:
    broken = copied(tmp_path)
    report = next((broken / "reports").iterdir())
    report.write_text("{}", encoding="utf-8")
    quick("compare", exported(), broken, cwd=tmp_path).refused("digest-mismatch")
    quick("compare", exported(), tmp_path / "none", cwd=tmp_path).refused("missing-file")
    quick("compare", exported(), tmp_path, cwd=tmp_path).refused("not-a-bundle")
    quick("compare", exported(), f"{exported()}@none", cwd=tmp_path).refused("unknown-report")
    (tmp_path / "it.json").write_text("{", encoding="utf-8")
    quick("compare", exported(), tmp_path / "it.json", cwd=tmp_path).refused("bad-report")
    quick("compare", exported(), exported(), "--target", "none", cwd=tmp_path).refused("unknown-target")


@pytest.mark.parametrize(
    "words",
    [("--max-slowdown", "5"), ("--max-slowdown", "-5%"), ("--max-slowdown", "x%"), ("--max-error", "0.5"),
     ("--max-error", "nan"), ("--max-slowdown", "inf%"), ("--markdown", "-", "--json")],
)  # fmt: skip
def test_a_bound_that_is_none_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = quick("compare", exported(), exported(), *words, cwd=tmp_path)
    assert ended.code == 2 and "bad-option" in ended.out + ended.err


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    for option in ("--junit", "--markdown"):
        quick("compare", exported(), exported(), option, tmp_path / "no" / "it", cwd=tmp_path).refused("bad-output")
        quick("compare", exported(), exported(), option, tmp_path, cwd=tmp_path).refused("bad-output")


def test_bundles_are_timed_here_side_by_side(tmp_path: Path) -> None:
    """Real children, of a target that computes in numpy: what is claimed of it is the business of the bench."""
    ended = run("compare", exported(), copied(tmp_path), "--json", "--max-slowdown", "900%", cwd=tmp_path)
    assert ended.code == 0 and ended.err == "", ended
    (timed,) = ended.json["latency"]
    assert timed["how"] == "live" and timed["clock"] == "processor" and timed["threads"] == 1 and timed["pairs"] >= 4
    assert len(timed["ratios"]) == timed["pairs"] and timed["a"]["ms"] > 0 and timed["settled"] is True
    assert not ended.json["missing"]


def test_an_artifact_that_crashes_when_it_is_timed_is_4(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    assert run("fake-crashes-later", "tiny", "-o", bundle, "--no-profile", cwd=tmp_path).code == 0
    crash = {"FAKES_CRASH": "1"}
    ended = run("compare", bundle, bundle, "--target", "fake-crashes-later", "--json", cwd=tmp_path, env=crash)
    (timed,) = ended.json["latency"]
    assert ended.code == 0 and timed["verdict"] == "SKIPPED" and "A: CRASHED" in timed["reason"], "it did so in A"


def test_junit_has_a_case_per_result_and_a_failure_per_regression(tmp_path: Path) -> None:
    a = of_both(tmp_path, "a.json", verified(), profiled(2.0))
    b = of_both(tmp_path, "b.json", verified(), profiled(3.0))
    run("compare", a, b, "--junit", tmp_path / "it.xml", cwd=tmp_path)
    suites = {suite.get("name"): suite for suite in Xml.parse(tmp_path / "it.xml").getroot()}
    assert suites["parity"].get("tests") == "2" and suites["parity"].get("failures") == "0"
    (failure,) = suites["latency"].iter("failure")
    assert "1.500x" in str(failure.get("message")) and suites["latency"].get("failures") == "1"
    only = written(tmp_path, verified(), "c.json")
    run("compare", only, only, "--junit", tmp_path / "it.xml", cwd=tmp_path)
    assert len(list(Xml.parse(tmp_path / "it.xml").getroot().iter("skipped"))) == 1


def test_markdown_says_the_verdict_first_and_holds_no_foreign_markup(tmp_path: Path) -> None:
    evil = verified() | {"model": "a|b<img src=x>@all![p](http://h/p.png) www.h.x *b*\x1b[31m\ud800\uffff"}
    a, b = written(tmp_path, evil, "a.json"), written(tmp_path, evil, "b.json")
    ended = quick("compare", a, b, "--markdown", "-", cwd=tmp_path)
    assert ended.out.startswith("### PASS: no difference shown\n")
    assert "<img" not in ended.out and "@all" not in ended.out and "\x1b" not in ended.out and "a\\|b" in ended.out
    assert "](" not in ended.out.replace("\\]", "") and "://" not in ended.out and "www." not in ended.out
    rows = [line for line in ended.out.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows[:3]}) == 1
    words = ("--markdown", tmp_path / "it.md", "--junit", tmp_path / "it.xml", "--json")
    again = quick("compare", a, b, *words, cwd=tmp_path)
    assert "img" in str(Xml.parse(tmp_path / "it.xml").getroot().get("name")), "whatever a model is called, it is XML"
    assert json.loads(again.out)["schema"] == "exporter.compare/1"
    assert (tmp_path / "it.md").read_text(encoding="utf-8") == ended.out
