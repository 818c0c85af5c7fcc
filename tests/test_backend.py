"""The harness of ONNX's node tests, on a handful of them: right, refused, wrong, crashed and hung."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backend import batches, cases
from tests.backend.child import BARE, OURS
from tests.backend.page import Row, page

MODULES = ("abs", "det", "dropout", "identity", "layernormalization")
# Some values pass through nodes that change nothing, and have a name of each of them.
NAMES = ("test_abs", "test_det_2d", "test_dropout_default", "test_identity_sequence",
         "test_layer_normalization_2d_axis0_expanded")  # fmt: skip
TARGETS = ("openvino", "mobile", "onnx-reference")
FAKES = "tests.fakes.node_tests"


@pytest.fixture(scope="module")
def tests() -> dict[str, Any]:
    """Some node tests as the package has them, by name."""
    for module in MODULES:
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    from onnx.backend.test.case.node import _NodeTestCases

    return {test.name: test for test in _NodeTestCases}


@pytest.fixture
def folder(tests: dict[str, Any], tmp_path: Path) -> Path:
    for name in NAMES:
        cases.write(tmp_path / name, tests[name].model, tests[name].data_sets)
    return tmp_path


@pytest.mark.parametrize("target", TARGETS)
def test_node_tests_pass_or_say_why_not(target: str, folder: Path) -> None:
    said = batches.run(target, OURS, folder, NAMES)
    assert list(said) == list(NAMES)
    refused = {name: (it["stage"], it["reason"]) for name, it in said.items() if it["verdict"] == "UNSUPPORTED"}
    expected = {"test_identity_sequence": ("interface", "an input is no tensor but of sequence type")}
    if target == "openvino":
        expected["test_det_2d"] = ("problems", "Det: OpenVINO has no such ONNX operator")
    assert refused == expected
    assert {said[name]["verdict"] for name in set(NAMES) - set(expected)} == {"PASS"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_answer_is_the_runtimes_where_the_bare_one_gives_it_too(
    target: str, folder: Path, tests: dict[str, Any]
) -> None:
    ((inputs, (expected,)),) = tests["test_abs"].data_sets
    other = np.array(expected)
    other.flat[7] += 0.5
    cases.write(folder / "test_abs", tests["test_abs"].model, [(inputs, [other])])
    row = Row(*("test_abs", *(batches.run(target, way, folder, ["test_abs"])["test_abs"] for way in (OURS, BARE))))
    assert row.verdict == "FAIL" and "by up to 0.5" in row.ours["reason"] and "in 1 of 60 values" in row.ours["reason"]
    assert row.bare is not None and row.bare["verdict"] == "FAIL" and not row.our_defect
    assert "| `test_abs` | FAIL |" in page({target: [row]}, "") and "the same" in page({target: [row]}, "")


def test_a_wrong_answer_is_ours_where_the_bare_runtime_is_right(folder: Path) -> None:
    ours = batches.run("mobile", OURS, folder, ["test_abs"], function=f"{FAKES}:tampering")["test_abs"]
    row = Row("test_abs", ours, batches.run("mobile", BARE, folder, ["test_abs"])["test_abs"])
    assert row.verdict == "FAIL" and row.our_defect
    assert "the defect is ours" in page({"mobile": [row]}, "")


@pytest.mark.parametrize(
    ("fault", "verdict"), [("crashing", "CRASHED"), pytest.param("hanging", "TIMED_OUT", marks=pytest.mark.slow)]
)
def test_a_child_that_ends_costs_the_test_that_it_was_at(fault: str, verdict: str, folder: Path) -> None:
    kept = list[int]()
    said = batches.run(
        "onnx-reference", OURS, folder, NAMES, lambda found: kept.append(len(found)), f"{FAKES}:{fault}", 15.0
    )  # fmt: skip
    assert {name for name, it in said.items() if it["verdict"] == verdict} == {"test_dropout_default"}
    assert set(said) == set(NAMES) and said[NAMES[-1]]["verdict"] == "PASS"
    assert kept == [3, 5]  # what was found before is kept before the next child
    assert "SIGSEGV" in said["test_dropout_default"]["reason"] or verdict == "TIMED_OUT"


def test_what_is_drawn_has_no_expected_output(tests: dict[str, Any], folder: Path) -> None:
    drawn = {}
    for name in ("test_training_dropout", "test_training_dropout_zero_ratio", "test_dropout_default_ratio"):
        cases.write(folder / name, tests[name].model, tests[name].data_sets)
        drawn[name] = bool(cases.read(folder / name)[0].outside)
    assert list(drawn.values()) == [True, False, False]
