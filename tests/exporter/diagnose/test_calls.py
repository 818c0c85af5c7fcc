"""The first bad step of a sequence, and the first bad run of a loop, each judged on what it was given."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.diagnose.calls import Call, calls, first_wrong, oracle_runner
from exporter.diagnose.oracle import answered
from exporter.program import Program
from exporter.spec import State, Step, Stream

STREAM, STATES = Stream("x", "y", 1, 6), [State("h", "h_out")]


def cell(recurrence: float = 0.7) -> onnx.ModelProto:
    """``y = h_out = tanh(x + recurrence * h)``, all ``(1, 1)``."""
    nodes = [
        helper.make_node("Mul", ["h", "r"], ["past"], name="past"),
        helper.make_node("Add", ["x", "past"], ["sum"], name="sum"),
        helper.make_node("Tanh", ["sum"], ["h_out"], name="tanh"),
        helper.make_node("Identity", ["h_out"], ["y"], name="out"),
    ]

    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1])

    inputs, outputs = [value("x"), value("h")], [value("y"), value("h_out")]
    graph = helper.make_graph(nodes, "cell", inputs, outputs, [numpy_helper.from_array(np.float32(recurrence), "r")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def program(repeat: int = 1) -> Program:
    states = tuple(STATES) if repeat > 1 else ()
    return Program(
        (Step("cell", repeat, states),), {"cell": {"x": (1, 1), "h": (1, 1)}}, {"cell": ["y", "h_out"]}, ("y", "h_out")
    )


def wrong_for(right: onnx.ModelProto) -> Callable[[Call], bool]:
    def wrong(call: Call) -> bool:
        expected = answered(right, call.feeds)
        return any(abs(call.outputs[name] - expected[name]).max() > 1e-9 for name in expected)

    return wrong


def sequence(model: onnx.ModelProto) -> Any:
    inputs = {"x": np.linspace(0.1, 0.6, 6)[None], "h": np.zeros((1, 1))}
    with oracle_runner(program(), {"cell": model}) as runner:
        yield from calls(runner, program(), inputs, 6, STREAM, STATES)


def test_a_wrong_recurrence_shows_at_the_second_step() -> None:
    """At the first the state is zero; at the third it is wrong as well, and that is carried, not born there."""
    found = first_wrong(sequence(cell(0.8)), wrong_for(cell()))
    assert found is not None and (found.step, found.round, found.graph) == (2, 0, "cell")


def test_what_the_state_carries_on_is_no_error_of_the_next_step() -> None:
    def damaged() -> Any:
        with oracle_runner(program(), {"cell": cell()}) as runner:
            first = {"x": np.linspace(0.1, 0.6, 6)[None], "h": np.ones((1, 1))}  # a state that should be zero
            yield from calls(runner, program(), first, 6, STREAM, STATES)

    assert first_wrong(damaged(), wrong_for(cell())) is None


def test_every_step_is_a_call_with_its_own_state() -> None:
    found = list(sequence(cell()))
    assert [call.step for call in found] == [1, 2, 3, 4, 5, 6]
    for before, after in pairwise(found):
        np.testing.assert_array_equal(after.feeds["h"], before.outputs["h_out"])


@pytest.mark.parametrize(("model", "first"), [(cell(0.8), 1), (cell(), None)])
def test_a_loop_is_judged_run_by_run(model: onnx.ModelProto, first: int | None) -> None:
    inputs = {"x": np.full((1, 1), 0.3), "h": np.zeros((1, 1))}
    with oracle_runner(program(4), {"cell": model}) as runner:
        found = list(calls(runner, program(4), inputs, 1, None, []))
    assert [(call.step, call.round) for call in found] == [(None, 0), (None, 1), (None, 2), (None, 3)]
    bad = first_wrong(iter(found), wrong_for(cell()))
    assert (bad.round if bad else None) == first
