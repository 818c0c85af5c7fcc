"""``--precision auto`` and ``--budget`` from the command line: what is tried, what is taken, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.bundle import Bundle
from tests.cli_fakes.tool import exported, quick, run

SPEEDS = {"FAKES_MS": "fp32:9,bf16:3,int8:6"}


def test_the_fastest_within_the_budget_is_taken_and_the_rest_is_told(tmp_path: Path) -> None:
    made = run(
        "fake-choices",
        "tiny",
        "--precision",
        "auto",
        "-o",
        "it.bundle",
        "--json",
        cwd=tmp_path,
        env=SPEEDS,
        cached=True,
    )
    assert made.code == 0, made
    auto = made.json["auto"]
    rows = {row["precision"]: row for row in auto["tried"]}
    assert auto["chosen"] == "bf16" and auto["budget"] == "snr:20"
    assert [rows[p]["verdict"] for p in ("fp32", "bf16", "int8")] == ["PASS"] * 3
    assert rows["bf16"]["median_ms"] < rows["int8"]["median_ms"] < rows["fp32"]["median_ms"]
    assert all(row["bytes"] > 0 and row["spent"]["decibels"] > 20 for row in rows.values() if row["spent"]["decibels"])
    assert list(Bundle.open(tmp_path / "it.bundle").manifest.targets) == ["fake-choices/bf16"]
    (hop,) = [hop for hop in made.json["verify"]["hops"] if hop["hop"] == "compiled"]
    assert hop["precision"]["asked"] == "bf16" and made.json["verdict"] == "PASS"


@pytest.mark.slow
def test_what_is_over_the_budget_is_not_taken_however_fast(tmp_path: Path) -> None:
    env = {"FAKES_MS": "fp32:9,bf16:6,int8:2", "FAKES_ERROR": "int8:0.05"}
    words = ("fake-choices", "tiny", "--precision", "auto", "--budget", "snr:30", "-o", "it.bundle")
    made = run(*words, cwd=tmp_path, env=env, cached=True)
    said = " ".join(made.out.split())
    assert made.code == 0 and "chosen bf16, within snr:30" in said
    assert "int8: normal" in said and "26.8 dB below the output; 30 dB were asked for" in said


@pytest.mark.slow
def test_a_budget_that_nothing_meets_ends_with_1_and_the_best_that_was_found(tmp_path: Path) -> None:
    words = ("fake-choices", "tiny", "--precision", "auto", "--budget", "snr:290", "-o", "it.bundle", "--json")
    made = run(*words, cwd=tmp_path, env=SPEEDS, cached=True)
    assert made.code == 1 and made.json["verdict"] == "FAIL", made
    auto = made.json["auto"]
    assert auto["chosen"] == "fp32" and "nothing meets the budget" in auto["why"]
    assert all(row["verdict"] == "FAIL" and "290 dB" in row["reason"] for row in auto["tried"])
    (hop,) = [hop for hop in made.json["verify"]["hops"] if hop["hop"] == "compiled"]
    assert hop["verdict"] == "FAIL" and "290 dB asked for" in hop["reason"]


def test_a_budget_stays_in_the_bundle_and_holds_when_it_is_verified_again(tmp_path: Path) -> None:
    env = {"FAKES_ERROR": "int8:0.05"}
    words = ("fake-choices", "tiny", "--precision", "int8", "-o", "it.bundle", "--no-profile")
    assert run(*words, "--budget", "snr:25", cwd=tmp_path, env=env, cached=True).code == 0
    assert run("verify", "it.bundle", cwd=tmp_path, env=env).code == 0
    worse = run("verify", "it.bundle", cwd=tmp_path, env={"FAKES_ERROR": "int8:0.08"})
    assert worse.code == 1 and "22.7 dB below the output; 25 dB" in " ".join(worse.out.split())


@pytest.mark.slow
def test_a_lower_precision_is_timed_beside_float32(tmp_path: Path) -> None:
    words = ("fake-choices", "tiny", "--precision", "bf16", "-o", "it.bundle", "--json")
    made = run(*words, cwd=tmp_path, env=SPEEDS, cached=True)
    assert made.code == 0, made
    names = [subject["name"] for subject in made.json["profile"]["subjects"]]
    assert names == ["eager", "fake-choices/bf16", "fake-choices"]
    ratios = {(ratio["of"], ratio["to"]): ratio["median"] for ratio in made.json["profile"]["ratios"]}
    assert 0.2 < ratios["fake-choices/bf16", "fake-choices"] < 0.6
    assert list(Bundle.open(tmp_path / "it.bundle").manifest.targets) == ["fake-choices/bf16"]


def test_what_cannot_be_chosen_is_refused_before_any_work(tmp_path: Path) -> None:
    said = quick("fake-choices", "tiny", "--precision", "auto", "--no-profile", cwd=tmp_path).refused("bad-option")
    assert "chooses by timing" in said
    absent = quick("fake-absent", "tiny", "--precision", "auto", "--json", cwd=tmp_path)
    assert absent.code == 3 and "chooses by measuring" in absent.json["what"]
    assert "it has no halves" in quick("fake-choices", "tiny", "--precision", "fp16", cwd=tmp_path).refused(
        "unsupported-precision"
    )
    assert "nearest: auto" in quick("fake-choices", "tiny", "--precision", "atuo", cwd=tmp_path).refused(
        "unsupported-precision"
    )
    assert not list(tmp_path.iterdir())
    found = quick("compile", exported(), "--target", "fake-choices", "--precision", "auto", cwd=tmp_path)
    assert "where the model is exported" in found.refused("unsupported-precision")


def test_a_budget_that_is_none_is_refused_before_any_work(tmp_path: Path) -> None:
    for text in ("snr", "snr:loud", "psnr:0.1"):
        found = quick("fake-choices", "tiny", "--precision", "auto", "--budget", text, cwd=tmp_path)
        assert f"--budget {text}" in found.refused("bad-budget")
    said = quick("openvino", "gtcrn", "--budget", "sisdr:0.1", "--precision", "auto", cwd=tmp_path).refused(
        "bad-budget"
    )
    assert "nearest: si-sdr" in said
    assert not list(tmp_path.iterdir())
