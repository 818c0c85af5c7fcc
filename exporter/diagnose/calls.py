"""Calls: a case as the calls of graphs that it is made of, and the first of them whose answer is wrong.

A model may run several graphs, some many times, and a sequence runs all of them at every step on its own state. Each
call is judged on what it was given, so that an error which the state carries on is not mistaken for a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from exporter import program
from exporter.diagnose.oracle import answered
from exporter.spec import State, Stream
from exporter.stream import driven

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Call:
    """One run of a graph within a case.

    Attributes:
        graph: which.
        step: at which step of a sequence, from 1; None of a single call.
        round: how often the graph ran before within that step.
        feeds: what it was given.
        outputs: what it gave.
    """

    graph: str
    step: int | None
    round: int
    feeds: dict[str, Array]
    outputs: dict[str, Array]


def calls(
    runner: BaseRunner,
    steps: program.Program,
    inputs: Arrays,
    length: int,
    stream: Stream | None,
    states: Sequence[State],
) -> Iterator[Call]:
    """Every call of a case, in order, by an active runner.

    Args:
        runner: of the whole model.
        steps: its program.
        inputs: the case's.
        length: how many steps a sequence takes; 1 for a single call.
        stream: how a sequence is driven.
        states: which outputs are fed back.
    """
    made: list[list[tuple[str, dict[str, Array]]]] = []

    def once(given: Arrays) -> dict[str, Array]:
        seen, outputs = program.observed(steps, runner, {name: np.array(value) for name, value in given.items()})
        made.append(seen)
        return outputs

    answers = driven(once, inputs, length, stream, states) if length > 1 and stream else iter([once(inputs)])
    for number, answer in enumerate(answers, 1):
        rounds: dict[str, int] = {}
        for graph, feeds in made.pop():
            rounds[graph] = rounds.get(graph, -1) + 1
            part = runner.parts[graph] if isinstance(runner, program.ProgramRunner) else None
            outputs = answer if part is None else _copied(part.infer(dict(feeds), check_inputs=False))
            yield Call(graph, number if length > 1 else None, rounds[graph], feeds, outputs)


def first_wrong(found: Iterator[Call], wrong: Callable[[Call], bool]) -> Call | None:
    """The first call whose answer is wrong for what it was given; None where the error is in none of them alone."""
    return next((call for call in found if wrong(call)), None)


def _copied(outputs: Arrays) -> dict[str, Array]:
    return {name: np.array(value) for name, value in outputs.items()}


class OracleRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy carries no types
    """A graph run in float64, node by node, in the place of a runtime."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(prefix="oracle-runner")
        self._model = model

    def activate_impl(self) -> None:
        pass

    def deactivate_impl(self) -> None:
        pass

    def get_input_metadata_impl(self) -> Any:
        return TensorMetadata()

    def infer_impl(self, feed_dict: Arrays) -> dict[str, Array]:
        return answered(self._model, feed_dict)


def oracle_runner(steps: program.Program, models: Mapping[str, onnx.ModelProto]) -> BaseRunner:
    """A whole model of graphs that run in float64."""
    if steps.single:
        return OracleRunner(models[steps.graphs[0]])
    return program.ProgramRunner(steps, {name: OracleRunner(models[name]) for name in steps.graphs})
