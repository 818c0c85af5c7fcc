"""Every model built, verified and timed on a real GPU, by the command that users type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter import registry
from exporter.bundle import Bundle
from tests.cli_fakes.tool import Ended
from tests.cli_fakes.tool import run as run_

PATIENCE = 3600.0  # a builder takes minutes


def run(*words: object, **more: object) -> Ended:
    return run_(*words, patience=PATIENCE, **more)


@pytest.fixture(scope="module")
def gtcrn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("gpu") / "gtcrn.bundle"
    for precision in ("fp32", "fp16"):
        made = run("tensorrt", "gtcrn", "--precision", precision, "-o", bundle, "--no-profile")
        assert made.code == 0, made
    return bundle


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", registry.model_names())
def test_every_model_is_built_and_right(name: str, precision: str, tmp_path: Path) -> None:
    words = ("tensorrt", name, "--precision", precision, "-o", tmp_path / "it.bundle", "--no-profile", "--json")
    made = run(*words)
    assert made.code == 0, made
    (hop,) = [hop for hop in made.json["verify"]["hops"] if hop["hop"] == "compiled"]
    assert hop["verdict"] == "PASS" and hop["facts"]["engine"]["differing"] == {}


def test_it_is_timed_by_events_with_copies_apart_and_clocks_noted(gtcrn: Path) -> None:
    found = run("profile", gtcrn, "--seconds", "20", "--layers", "--json")
    assert found.code == 0, found
    subjects = {s["name"]: s for s in found.json["subjects"]}
    for name in ("tensorrt", "tensorrt/fp16"):
        timed = subjects[name]
        assert timed["clock"] == "device" and timed["median_ms"] > 0 and min(timed["copies_ms"].values()) > 0
        assert any(layer["nodes"] for layer in timed["layer_times"])
    assert found.json["environment"]["devices"]["before"]["tensorrt"]["clock_mhz"]


def test_a_cuda_graph_gives_the_same_answers(gtcrn: Path) -> None:
    words = ("profile", gtcrn, "--target", "tensorrt/fp32", "--option", "cuda-graph=true", "--seconds", "5", "--json")
    found = run(*words)
    timed = {s["name"]: s for s in found.json["subjects"]}["tensorrt"]
    assert timed["verdict"] == "PASS", timed["reason"]
    plain = {s["name"]: s for s in run(*words[:3], "tensorrt/fp32", "--seconds", "5", "--json").json["subjects"]}
    assert timed["host_ms"] < plain["tensorrt"]["host_ms"], "a replayed graph costs the host less than its layers"


def test_an_engine_of_a_stranger_is_built_again(gtcrn: Path, tmp_path: Path) -> None:
    found = run("verify", gtcrn, "--target", "tensorrt/fp32", "--json", env={"XDG_STATE_HOME": str(tmp_path)})
    assert found.code == 0, found
    assert "compiled again from its graph" in " ".join(found.json["hops"][0]["facts"]["advice"])


@pytest.mark.parametrize("option", ["version-compatible=true", "strip-plan=true", "refit=true", "weight-streaming=true",
                                    "hardware-compatible=ampere-plus", "workspace=1G"])  # fmt: skip
def test_every_option_builds_an_engine_that_is_right(option: str, tmp_path: Path) -> None:
    words = ("tensorrt", "mdta", "-o", tmp_path / "it.bundle", "--option", option, "--no-profile", "--json")
    made = run(*words)
    assert made.code == 0 and made.json["verdict"] == "PASS", made


def test_the_second_build_uses_the_timings_of_the_first(gtcrn: Path) -> None:
    made = run("compile", gtcrn, "--target", "tensorrt", "--json")
    assert made.code == 0, made
    assert not any("discarded" in line for line in made.json["verify"]["hops"][0]["facts"]["advice"])


def test_the_engine_s_own_words_are_understood(gtcrn: Path) -> None:
    """The inspector's words differ between versions: a type that is not read would be a type that is not proven."""
    found = run("verify", gtcrn, "--json")
    assert found.code == 0, found
    for hop in found.json["hops"]:
        facts = hop["facts"]["engine"]
        told = facts["precision"] not in ("none", "", "unproven")
        assert told and sum(facts["layers"].values()) > 0, json.dumps(facts)
    assert Bundle.open(gtcrn).manifest.targets["tensorrt/fp16"].fingerprint["gpu"]
