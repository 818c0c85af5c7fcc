"""What commands print: one JSON object with --json, plain and stable lines in a pipe, progress on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli_fakes.tool import COMMAND, contents, copied, environment, exported, quick, run

PRECISION = {"asked", "stored", "ran"}
HOP = {"hop", "target", "precision", "verdict", "reason", "worst"}
RESULT = {"hop", "target", "case", "output", "verdict", "reason", "relative_l2", "noise", "amplification", "max_abs",
          "elements"}  # fmt: skip
SUBJECT = {"name", "precision", "median_ms", "interval_ms", "p95_ms", "n", "load_ms", "first_run_ms", "peak_rss_mb",
           "threads"}  # fmt: skip
VERDICTS = {"PASS", "FAIL", "INVALID", "CRASHED", "TIMED_OUT", "UNSUPPORTED", "SKIPPED"}


def check_verify(value: dict) -> None:
    assert value["schema"] == "exporter.verify/1"
    assert {"model", "verdict", "hops", "results"} <= set(value)
    assert value["verdict"] in VERDICTS and value["hops"]
    for hop in value["hops"]:
        assert set(hop) >= HOP and hop["verdict"] in VERDICTS
        assert hop["hop"] in {"traced", "simplified", "lowered", "compiled"}
        assert hop["precision"] is None or set(hop["precision"]) == PRECISION
        assert hop["worst"] is None or set(hop["worst"]) >= RESULT
    for result in value["results"]:
        assert set(result) >= RESULT and result["elements"] > 0


def check_profile(value: dict) -> None:
    assert value["schema"] == "exporter.profile/1"
    keys = {"stability", "noise_floor", "seed", "blocks", "subjects", "ratios", "environment"}
    assert keys <= set(value) and value["stability"] in {"STABLE", "NOISY", "INVALID"}
    for subject in value["subjects"]:
        assert set(subject) >= SUBJECT and set(subject["precision"]) == PRECISION
        low, high = subject["interval_ms"]
        assert low <= subject["median_ms"] <= high
    for ratio in value["ratios"]:
        assert set(ratio) == {"of", "to", "median", "interval", "conclusion"}


def test_export(tmp_path: Path) -> None:
    """Verification and profile inside, and the same object in the bundle's report."""
    bundle = copied(tmp_path)
    ended = run("fake-good", "tiny", "-o", bundle, "--json", cwd=tmp_path)
    assert ended.code == 0 and ended.err == ""
    value = ended.json
    assert set(value) == {"schema", "bundle", "verdict", "stages", "verify", "profile", "published", "auto"}
    assert value["schema"] == "exporter.export/1" and value["bundle"] == str(bundle) and value["verdict"] == "PASS"
    assert all(set(stage) == {"stage", "seconds", "peak_rss_mb", "cached"} for stage in value["stages"])
    check_verify(value["verify"])
    check_profile(value["profile"])
    assert [s["name"] for s in value["profile"]["subjects"]] == ["eager", "fake-good"]
    assert [(r["of"], r["to"]) for r in value["profile"]["ratios"]] == [("fake-good", "eager")]


def test_export_without_profile(tmp_path: Path) -> None:
    ended = quick("fake-good", "tiny", "-o", copied(tmp_path), "--no-profile", "--json", cwd=tmp_path)
    assert ended.json["profile"] is None


def test_verify(tmp_path: Path) -> None:
    ended = quick("verify", exported(), "--json", cwd=tmp_path)
    assert ended.code == 0 and ended.err == ""
    check_verify(ended.json)
    assert ended.json["model"] == "tiny" and "seeded weights" in ended.json["weights"]


def test_profile(tmp_path: Path) -> None:
    ended = quick("profile", exported(), "--seconds", 1, "--seed", 5, "--threads", 1, "--json", cwd=tmp_path)
    assert ended.code == 0 and ended.err == ""
    check_profile(ended.json)
    assert ended.json["seed"] == 5 and {s["threads"] for s in ended.json["subjects"]} == {1}


def test_models(tmp_path: Path) -> None:
    value = quick("models", "--json", cwd=tmp_path).json
    assert value["schema"] == "exporter.models/1"
    keys = {"name", "family", "parameters", "inputs", "dims", "state", "metric", "source", "licence"}
    assert all(keys <= set(model) for model in value["models"])


def test_models_of_ours_and_of_another_package_are_listed(tmp_path: Path) -> None:
    names = [m["name"] for m in quick("models", "--json", cwd=tmp_path).json["models"]]
    assert {"gtcrn", "gtcrn-stream", "tiny"} <= set(names)


def test_one_model(tmp_path: Path) -> None:
    (only,) = quick("models", "tiny", "--json", cwd=tmp_path).json["models"]
    assert only["parameters"] == 15 and only["dims"] == ["T=2:5:9"] and only["inputs"][0]["shape"] == ["T", 4]


def test_targets(tmp_path: Path) -> None:
    value = quick("targets", "--json", cwd=tmp_path).json
    assert value["schema"] == "exporter.targets/1"
    keys = {"name", "available", "version", "precisions", "options", "prepares", "reason", "next"}
    by_name = {target["name"]: target for target in value["targets"]}
    assert all(set(target) == keys for target in by_name.values())
    assert by_name["fake-good"]["available"] and not by_name["fake-absent"]["available"]
    assert {"openvino", "mobile", "onnx-reference"} <= set(by_name)


def test_the_rest(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "in.npz", x=np.ones((5, 4), np.float32))
    words = ("run", exported(), "in.npz", "--target", "fake-good", "-o", "out.npz", "--json")
    value = quick(*words, cwd=tmp_path).json
    assert value == {"schema": "exporter.run/1", "output": "out.npz", "calls": 1, "outputs": {"y": [5, 3]}}
    assert quick("inspect", exported(), "--json", cwd=tmp_path).json["schema"] == "exporter.inspect/1"
    doctor = quick("doctor", "--json", cwd=tmp_path)
    assert doctor.code == 3 and doctor.json["schema"] == "exporter.doctor/1" and not doctor.json["ok"]
    assert any(problem.startswith("fake-absent: ") for problem in doctor.json["problems"])
    assert [target.partition(":")[0] for target in doctor.json["elsewhere"]] == ["tensorrt"]
    assert not any(problem.startswith("tensorrt") for problem in doctor.json["problems"]), "it is prepared here"


def test_json_has_no_numbers_that_are_none(tmp_path: Path) -> None:
    """NaN and Infinity are no JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    bundle = copied(tmp_path)
    ended = quick("fake-nan", "tiny", "-o", bundle, "--no-profile", "--json", cwd=tmp_path)
    json.loads(ended.out, parse_constant=refuse)
    assert ended.code == 1


# ------------------------------------------------------------------------------------------------ plain and stable


@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": None, "TERM": "xterm-256color"}, {"TERM": "dumb", "LC_ALL": "C"}])
def test_a_pipe_gets_plain_lines(tmp_path: Path, env: dict[str, str | None]) -> None:
    bundle = copied(tmp_path)
    ended = run("fake-good", "tiny", "-o", bundle, "--no-profile", cwd=tmp_path, env=env)
    for text in (ended.out, ended.err):
        assert not re.search(r"[\x1b\r\b\x07]", text)
    assert all(line.endswith(" ...") for line in ended.err.splitlines())
    assert ended.out.startswith("PASS  tiny  ")


def test_the_same_twice_is_the_same(tmp_path: Path) -> None:
    first, second = (quick("verify", exported(), cwd=tmp_path) for _ in range(2))
    assert first == second
    narrow = run("verify", exported(), cwd=tmp_path, env={"COLUMNS": "20"})
    assert (narrow.out, narrow.err) == (first.out, first.err), "a pipe has no width"


def test_stages_are_said_in_one_order_each_on_a_line(tmp_path: Path) -> None:
    ended = run("fake-good", "tiny", "--no-profile", cwd=tmp_path)
    assert ended.err.splitlines() == [
        f"{stage} ..."
        for stage in ("trace", "reference", "simplify", "verify traced", "verify simplified", "compile",
                      "verify fake-good/fp32")
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["targets"], ["inspect", "BUNDLE"], ["verify", "BUNDLE"], ["--help"], ["doctor"]])
@pytest.mark.parametrize("json_too", [False, True])
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, words: list[str], json_too: bool) -> None:
    line = [str(exported()) if word == "BUNDLE" else word for word in words]
    line += ["--json"] if json_too and "--help" not in words else []
    process = subprocess.Popen(
        [COMMAND, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=tmp_path, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) in (0, 3)
    process.stderr.close()
    assert not [text for text in said.splitlines() if not text.endswith(" ...")], said


def on_a_terminal(words: list[str], cwd: Path) -> tuple[str, str, int]:
    """What a command prints on a terminal as stderr, and into a pipe as stdout."""
    leader, follower = pty.openpty()
    env = environment(TERM="xterm-256color")
    process = subprocess.Popen([COMMAND, *words], stdout=subprocess.PIPE, stderr=follower, env=env, cwd=cwd)
    os.close(follower)
    shown, out = b"", b""
    assert process.stdout is not None
    streams = {leader, process.stdout.fileno()}
    while streams:
        for stream in select.select(list(streams), [], [], 60)[0]:
            try:
                data = os.read(stream, 4096)
            except OSError:  # the other end of a terminal is closed
                data = b""
            if not data:
                streams.discard(stream)
            shown, out = (shown + data, out) if stream == leader else (shown, out + data)
    process.stdout.close()
    os.close(leader)
    return shown.decode(), out.decode(), process.wait(60)


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    shown, out, code = on_a_terminal(["verify", str(exported())], tmp_path)
    assert code == 0 and out.startswith("PASS") and "\x1b" not in out
    assert "verify fake-good/fp32" in shown and "\x1b[?25l" in shown
    assert shown.rstrip().endswith(("\x1b[?25h", "\x1b[2K", "\x1b[1A")) or "\x1b[?25h" in shown, "the cursor is back"


def test_no_progress_beside_json(tmp_path: Path) -> None:
    shown, out, code = on_a_terminal(["verify", str(exported()), "--json"], tmp_path)
    assert code == 0 and shown == "" and json.loads(out)


def test_junit(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    quick("fake-wrong", "tiny", "-o", bundle, "--no-profile", cwd=tmp_path)
    ended = quick("verify", bundle, "--junit", "verdicts.xml", cwd=tmp_path)
    assert ended.code == 1
    suites = ElementTree.parse(tmp_path / "verdicts.xml").getroot().findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["compiled fake-good", "compiled fake-wrong"]
    for suite in suites:
        cases = suite.findall("testcase")
        assert int(suite.get("tests", "")) == len(cases) == 9
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
    assert suites[0].get("failures") == "0" and suites[1].get("failures") != "0"


def test_verify_and_profile_write_only_when_asked(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    before = contents(tmp_path)
    quick("verify", bundle, cwd=tmp_path)
    quick("profile", bundle, "--seconds", 1, cwd=tmp_path)
    quick("inspect", bundle, cwd=tmp_path)
    assert contents(tmp_path) == before
    assert quick("verify", bundle, "--save", cwd=tmp_path).code == 0
    assert "verify" in json.loads((bundle / "manifest.json").read_text())["reports"]


@pytest.mark.parametrize("words", [["--help"], ["verify", "--help"], ["fake-good", "--help"], ["--version"], []])
def test_help(tmp_path: Path, words: list[str]) -> None:
    ended = quick(*words, cwd=tmp_path)
    assert ended.code in (0, 2) and "Traceback" not in ended.out + ended.err
    assert ended.code == 0 or words == []


def test_results_of_two_precisions_of_a_target_are_told_apart(tmp_path: Path) -> None:
    from exporter.cli.output import results_of, write_junit

    result = {"hop": "compiled", "target": "t", "form": None, "case": "c", "output": "y", "reason": None}
    results = [{**result, "precision": "fp32", "verdict": "PASS"}, {**result, "precision": "bf16", "verdict": "FAIL"}]
    hop = {"hop": "compiled", "target": "t", "verdict": "PASS", "reason": None}
    hops = [{**hop, "precision": {"asked": name}} for name in ("fp32", "bf16")]
    value = {"model": "m", "hops": hops, "results": results}
    assert [results_of(value, hop) for hop in hops] == [[results[0]], [results[1]]]
    write_junit(tmp_path / "r.xml", value)
    assert re.findall(r'failures="(\d)"', (tmp_path / "r.xml").read_text()) == ["0", "1"]
