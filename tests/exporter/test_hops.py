"""What ran against what was asked: by the runtime's word, and by the values themselves."""

from __future__ import annotations

import pytest

from exporter.hops import FLOAT32, TOO_RIGHT, _differing, _mismatch, _too_right
from exporter.parity.ladder import RUNGS
from exporter.verdict import Result, Verdict
from exporter.work import Work


@pytest.mark.parametrize(
    ("computed", "ran", "mixed", "right"),
    [
        ("fp32", {"fp32"}, False, True),
        ("fp32", {"bf16"}, False, False),
        ("fp32", {"fp32", "bf16"}, False, False),
        ("fp32", {"bf16+fp32"}, False, False),
        ("fp32", set(), False, False),
        ("fp32", {"none"}, False, False),
        ("fp16", {"unproven"}, True, False),
        ("fp16", {"fp16"}, True, True),
        ("fp16", {"fp16+fp32"}, True, True),
        ("fp16", {"fp16+fp32"}, False, False),
        ("fp16", {"fp32"}, True, False),
        ("fp16", {"bf16"}, True, False),
        ("fp16", {"bf16+fp16"}, True, False),
        ("fp16+fp32", {"fp16+fp32"}, False, True),
        ("fp16+fp32", {"fp32"}, False, False),
        ("tf32", {"tf32"}, True, True),
        ("tf32", {"fp32+tf32"}, True, True),
        ("tf32", {"fp32"}, True, True),  # a permission
        ("tf32", {"fp16"}, True, False),
        ("fp32", {"tf32"}, False, False),
    ],
)
def test_what_ran_is_what_was_asked(computed: str, ran: set[str], mixed: bool, right: bool) -> None:
    said = _mismatch("it", computed, ran, {}, FLOAT32 if mixed else None)
    assert (said == "") == right
    assert right or "asked for it" in said


def test_what_is_kept_out_runs_in_what_the_way_says_and_nothing_else() -> None:
    either = FLOAT32 | {"bf16"}
    assert _mismatch("int8", "int8", {"bf16+int8"}, {}, either) == ""
    assert _mismatch("int8", "int8", {"bf16+int8"}, {}, FLOAT32) != ""
    assert _mismatch("int8", "int8", {"bf16+fp32"}, {}, either) != "", "nothing ran in int8"
    work = {name: Work("MatMul", 1) for name in ("a", "b", "c")}
    ran = {"a": "int8", "b": "bf16", "c": "bf16"}
    assert _differing(work, ran, "int8", {"b": either}) == {"c": "bf16"}
    assert _differing(work, ran, "int8", {"b": FLOAT32, "c": either}) == {"b": "bf16"}


def test_nodes_in_another_type_than_declared_are_named_and_counted() -> None:
    said = _mismatch("fp16", "fp16", {"fp16"}, {f"node{i}": "fp32" for i in range(7)}, FLOAT32)
    assert "node0 in fp32" in said and "and 2 more" in said


def test_a_runtime_that_names_no_node_proves_nothing() -> None:
    assert ".float()" in _mismatch("fp32", "fp32", {"fp32+fp64"}, {}, None)
    assert ".float()" in _mismatch("fp32", "fp32", {"fp32+fp64"}, {"node": "fp64"}, None)
    assert "says of no node" in _mismatch("fp16", "fp16", {"unproven"}, {}, FLOAT32)


def result(amplification: float | None) -> Result:
    return Result("compiled", "t", "case", "y", None, Verdict.PASS, amplification=amplification)


def test_an_error_far_below_that_of_the_precision_says_that_nothing_was_lowered() -> None:
    low = RUNGS["low"]
    said = _too_right("fp16", low, [result(1e-4), result(2e-4)])
    assert "asked for fp16" in said and "a higher precision ran" in said
    assert _too_right("fp16", low, [result(1e-4), result(0.2)]) == "", "one case that shows it is enough"
    assert _too_right("fp16", low, [result(TOO_RIGHT)]) == ""
    assert _too_right("fp16", low, []) == "" and _too_right("fp16", low, [result(None)]) == ""
    assert _too_right("fp32", RUNGS["compiled"], [result(1e-4)]) == "", "no artifact is too right for its own precision"
