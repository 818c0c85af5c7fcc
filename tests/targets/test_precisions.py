"""Lower precisions on the runtimes that are here: asked, stored and ran are told, and how much of the work was it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from exporter.bundle import Bundle
from exporter.target import MIXED, QUANTISED
from targets import openvino
from tests.cli_fakes.tool import run
from tests.fakes.processor import has_bf16, skip_without

# ``tiny`` is one product: all of its work is in it. Of what int8 leaves out, as much as can be is in bf16.
EXPECTED = [
    ("openvino", "bf16", "hint", "fp32", "bf16", "bf16"),
    ("openvino", "int8", "mixed", "int8", "int8", "int8"),
    ("mobile", "fp16", "types", "fp16", "fp32", "fp32"),
    ("mobile", "int8", "quantised", "int8", "int8", "int8"),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every target and precision of one model: exporting again adds to a bundle."""
    return tmp_path_factory.mktemp("precisions") / "tiny.bundle"


@pytest.mark.parametrize(("target", "precision", "way", "stored", "ran", "work"), EXPECTED)
def test_what_was_asked_is_what_ran(
    target: str, precision: str, way: str, stored: str, ran: str, work: str, bundle: Path
) -> None:
    skip_without(precision)
    made = run(target, "tiny", "--precision", precision, "-o", bundle, "--no-profile", "--json", cached=True)
    assert made.code == 0 and made.json["verdict"] == "PASS", made
    (hop,) = [hop for hop in made.json["verify"]["hops"] if hop["hop"] == "compiled"]
    assert hop["precision"]["asked"] == precision and hop["precision"]["stored"] == stored
    assert ran in hop["precision"]["ran"].split("+")
    assert hop["facts"]["work"].get(work, 0.0) > 0.99, hop["facts"]["work"]
    info = Bundle.open(bundle).manifest.targets[f"{target}/{precision}"]
    assert info.way == (way if way != MIXED or has_bf16() else QUANTISED)
    assert (info.calibration is not None) == (precision == "int8")


def test_all_of_them_are_verified_again_by_the_same_rules(bundle: Path) -> None:
    again = run("verify", bundle, "--target", "mobile", "--json")
    assert again.code == 0
    asked = {hop["precision"]["asked"]: hop for hop in again.json["hops"]}
    assert asked.keys() == {"fp16", "int8"} and asked["int8"]["facts"]["budget"] == "snr:20"
    assert asked["int8"]["facts"]["work"]["int8"] > 0.99


def test_an_application_is_told_the_precision_that_was_judged(bundle: Path) -> None:
    skip_without("bf16")
    page = (bundle / "USE.md").read_text()
    assert '"INFERENCE_PRECISION_HINT": "bf16"' in page and "ov::element::bf16)" in page


@pytest.mark.slow
def test_layers_that_int8_does_not_do_for_are_found_by_running_and_named(tmp_path: Path) -> None:
    """Quantised throughout, ``mdta`` is 9 dB above its error on ONNX Runtime."""
    bundle = tmp_path / "mdta.bundle"
    made = run("mobile", "mdta", "--precision", "int8", "-o", bundle, "--no-profile", "--json", patience=400)
    assert made.code == 0 and made.json["verdict"] == "PASS", made
    (hop,) = [hop for hop in made.json["verify"]["hops"] if hop["hop"] == "compiled"]
    facts = hop["facts"]
    assert facts["spent"]["decibels"] >= 20 and 0.25 < facts["work"]["int8"] < 1
    assert facts["search"]["runs"] > 2 and facts["search"]["excess"] <= 1
    assert facts["kept"] and all("alone brings" in reason for reason in facts["kept"].values())
    assert set(facts["modules"].values()) - {""}, "told by module"
    assert any("scales were taken from 8 generated" in line for line in facts["advice"])
    again = run("verify", bundle, "--json")
    assert again.code == 0 and again.json["hops"][0]["facts"]["kept"] == facts["kept"]


@pytest.mark.slow
def test_a_node_that_a_hint_does_not_reach_is_named_and_the_types_are_written_instead(tmp_path: Path) -> None:
    """The last transposed convolution of ``cost-aggregation``, a seventh of its work, stays in float32 by hint."""
    skip_without("bf16")
    words = ("--precision", "bf16", "-o", tmp_path / "it.bundle", "--no-profile", "--json")
    made = run("openvino", "cost-aggregation", *words)
    assert made.code == 0, made
    (hop,) = [hop for hop in made.json["verify"]["hops"] if hop["hop"] == "compiled"]
    assert hop["facts"]["work"]["bf16"] > 0.99
    assert any("by way of 'hint' it was FAIL" in line and "in fp32" in line for line in hop["facts"]["advice"])
    assert Bundle.open(tmp_path / "it.bundle").manifest.targets["openvino/bf16"].way == "types"


def test_a_folder_for_both_is_split_and_the_bundle_says_how(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index in range(4):
        values = np.random.default_rng(index).normal(size=(5, 4)).astype(np.float32)
        save_file({"x": values}, data / f"s{index}.safetensors")
    bundle = tmp_path / "tiny.bundle"
    words = ("--precision", "int8", "--samples", data, "--calibration", data, "-o", bundle, "--no-profile", "--json")
    made = run("mobile", "tiny", *words, cached=True)
    assert made.code == 0, made
    manifest = Bundle.open(bundle).manifest
    given = manifest.targets["mobile/int8"].calibration
    assert given is not None and len(given.files) == 2 and "2 of the 4 in data, drawn with seed 0" in given.source
    assert sum(case.kind == "sample" for case in manifest.cases) == 2


def test_calibration_on_what_is_judged_is_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        save_file({"x": values}, tmp_path / place / f"{place}.safetensors")
    words = ("--samples", tmp_path / "one", "--calibration", tmp_path / "other", "-o", tmp_path / "it.bundle")
    found = run("mobile", "tiny", "--precision", "int8", *words, cached=True)
    assert "is the case sample-one as well" in found.refused("bad-calibration")
    assert not (tmp_path / "it.bundle").exists()


def test_a_precision_that_a_target_has_not_says_so_before_any_work(tmp_path: Path) -> None:
    found = run("mobile", "tiny", "--precision", "bf16", "-o", tmp_path / "it.bundle", "--json")
    assert found.code == 2 and json.loads(found.out)["code"] == "unsupported-precision"
    assert "trace" not in found.err


def test_a_processor_without_bf16_is_offered_no_mix_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_capabilities", lambda: ["FP32", "INT8"])
    target = openvino.OpenVINO()
    assert target.ways("int8") == (QUANTISED,) and MIXED in target.lowers["int8"]
    lack = target.lacks("bf16", 0)
    assert lack is not None and "this processor computes in FP32, INT8" in lack.reason


def test_calibration_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    found = run("mobile", "tiny", "--calibration", tmp_path, "-o", tmp_path / "it.bundle")
    assert "takes no scales from it" in found.refused("bad-calibration")
