"""What a diagnosis found, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from exporter.verdict import Verdict


class Outcome(str, Enum):
    """How a diagnosis ended."""

    NOTHING = "nothing to diagnose"
    LOCATED = "located"
    VANISHES = "vanishes when observed"
    CARRIED = "carried"
    STALE = "not what is compiled here"
    BEFORE = "before the graph"
    UNDECIDED = "not located"
    NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Point:
    """How far off the values are after so many nodes, in units of rounding's own error."""

    place: int
    node: str
    off: float


@dataclass(frozen=True)
class Birth:
    """Where in a graph an error is born, for one case.

    Attributes:
        case: the case.
        graph: the graph.
        node: the first node whose answer is wrong for right inputs; of a range, its last.
        operator: that node's.
        value: the first wrong value it gives.
        off: how far off that is, in units of rounding's own error.
        before: how far off what comes before it is.
        module: the path of the module it was traced from.
        source: the line of the user's code, from its package on.
        nodes: all nodes between what is right and what is wrong: one, unless looking closer changes the answer.
        of: how many nodes the graph has that compute something from the inputs.
        place: its place among them, from 1.
        step: the step of a sequence, from 1.
        round: how often the graph ran before within that step.
        alone: whether this node alone, given the right inputs, is wrong as well; None where that was not tried.
        only: whether the answer is right where this one is mended; None where that was not tried.
        growth: the error along the graph.
    """

    case: str
    graph: str
    node: str
    operator: str
    value: str
    off: float
    before: float
    module: str
    source: str
    nodes: tuple[str, ...]
    of: int
    place: int
    step: int | None = None
    round: int = 0
    alone: bool | None = None
    only: bool | None = None
    growth: tuple[Point, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The birth as ``--json`` prints it."""
        return asdict(self) | {"nodes": list(self.nodes), "growth": [asdict(point) for point in self.growth]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Birth:
        """The birth that a child sent."""
        points = tuple(Point(**point) for point in value["growth"])
        return cls(**{**value, "nodes": tuple(value["nodes"]), "growth": points})


@dataclass(frozen=True)
class Diagnosis:
    """What a diagnosis says.

    Attributes:
        model: the model's name.
        bundle: the bundle's place.
        weights: what the weights are.
        verdict: the verdict of the hop that was looked into; ``PASS`` where there was nothing to diagnose.
        outcome: how it ended.
        hop: the first hop that is wrong.
        target: its target, on a compiled hop.
        precision: its precision.
        simplify_pass: the pass that brought the error, where a pass did.
        births: where the error is born, case by case, the smallest first.
        reproduction: the bundle that fails in the same way, where one was written.
        notes: what else is worth knowing.
        seconds: how long it took.
        runs: how many graphs were compiled and run for it.
    """

    model: str
    bundle: str
    weights: str
    verdict: Verdict
    outcome: Outcome
    hop: str | None = None
    target: str | None = None
    precision: str | None = None
    simplify_pass: str | None = None
    births: tuple[Birth, ...] = ()
    reproduction: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    runs: int = 0
    files: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def birth(self) -> Birth | None:
        """Where the error is born, in the smallest case."""
        return self.births[0] if self.births else None

    def as_json(self) -> dict[str, Any]:
        """The object of ``diagnose --json``."""
        return {
            "schema": "exporter.diagnose/1",
            "model": self.model,
            "bundle": self.bundle,
            "weights": self.weights,
            "verdict": self.verdict.value,
            "outcome": self.outcome.value,
            "hop": self.hop,
            "target": self.target,
            "precision": self.precision,
            "pass": self.simplify_pass,
            "births": [birth.as_json() for birth in self.births],
            "reproduction": self.reproduction,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
            "runs": self.runs,
        }
