"""Where one graph goes wrong against the one it was made of: both are run node by node, and values are told by name.

No runtime is asked, so that looking changes nothing. A value that has a name of its own in one graph alone is told by
what it holds; where it is neither, the nodes between what is right and what is wrong are the answer, and among them
those that the other graph has no equal of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import onnx
from onnx import numpy_helper

from exporter.diagnose import cuts, places
from exporter.diagnose.known import LEAST, Array, Known, bound
from exporter.diagnose.oracle import Ran, answered, is_float, walk
from exporter.diagnose.result import Birth, Point
from exporter.errors import NotProven
from exporter.parity.ladder import FEW

# Beyond so many wrong places that could each be the first, the first few are tried.
MOST_TRIED = 12
CLOSE = 1e-5


@dataclass
class Against:
    """A graph against the right values of another.

    Attributes:
        model: the graph that is wrong.
        feeds: what both are given.
        known: the right values, by their names in the other.
        before: the other graph, where there is one.
        broken: the place of the node, from 1, that cannot run on what it is given; None where all can.
    """

    model: onnx.ModelProto
    feeds: Mapping[str, Array]
    known: Known
    before: onnx.ModelProto | None = None
    off: dict[str, float] = field(default_factory=dict)
    broken: int | None = None

    def __post_init__(self) -> None:
        self.order = cuts.needed(self.model.graph)
        self._run()

    def _run(self) -> None:
        """Runs it once, and tells every value that can be told apart as right or wrong."""
        outputs, off, alike = {value.name for value in self.model.graph.output}, dict[str, float](), set[str]()
        for ran in self._walked():
            told = self.known.off(ran.outputs)
            off |= told
            for name, value in ran.outputs.items():
                # Two numbers may be the same by chance; and what is right under its own name is not looked for.
                if value.size >= FEW and told.get(name, float("inf")) > LEAST and self._alike.has(value):
                    alike.add(name)
        self.final = {name: off.get(name, float("inf")) for name in outputs}
        self.bound = bound(self.final.values())
        # A pass may give a name to another value than the one that had it, or leave out what made it that: which of
        # both, this value alone does not tell.
        untold = {name for name in alike if off.get(name, 0.0) > self.bound}
        inputs = dict.fromkeys((value.name for value in self.model.graph.input), 0.0)
        self.off = inputs | dict.fromkeys(alike - off.keys(), 0.0) | {n: o for n, o in off.items() if n not in untold}

    @cached_property
    def _alike(self) -> _Alike:
        return _Alike(self.known)

    def _walked(self) -> Iterator[Ran]:
        """Runs it as far as it runs."""
        place = 0
        try:
            for ran in walk(self.model, self.feeds):
                place = ran.place + 1
                yield ran
        except NotProven:
            if place not in self.order:
                raise
            self.broken = self.order.index(place) + 1

    @property
    def wrong(self) -> bool:
        """Whether its answer is another."""
        return max(self.final.values(), default=0.0) > self.bound

    def first(self) -> tuple[int, bool]:
        """The place of the node, from 1, that the error comes from, and whether mending it mends the answer.

        Every node that gives something wrong from what is right could be it. The one that mends the answer is taken,
        the first where none alone does.
        """
        graph = self.model.graph
        wrong = {name for name, off in self.off.items() if off > self.bound}
        candidates = [
            place for place, index in enumerate(self.order, 1)
            if (set(graph.node[index].output) & wrong or place == self.broken) and not self._reached(index) & wrong
        ]  # fmt: skip
        for place in candidates[:MOST_TRIED]:
            if self.mended(place):
                return place, True
        return candidates[0] if candidates else self.broken or len(self.order), False

    def mended(self, place: int) -> bool:
        """Whether the answer is right where what one node gives is put right."""
        names = [name for name in self.model.graph.node[self.order[place - 1]].output if name in self.known]
        right = {name: self.known.value(name) for name in names}
        try:
            answer = answered(self.model, self.feeds, instead=right)
        except NotProven:
            return False
        return max(self.known.off(answer).values(), default=0.0) <= self.bound

    def region(self, place: int) -> list[int]:
        """The nodes between the right values and what a node gives, itself the last."""
        graph, producers = self.model.graph, _producers(self.model.graph)
        found, edge = {self.order[place - 1]}, [self.order[place - 1]]
        while edge:
            names = [name for name in graph.node[edge.pop()].input if name and name not in self.off]
            more = {producers[name] for name in names if name in producers} - found
            found |= more
            edge += more
        return [index for index in self.order if index in found]

    def birth(self, place: int, case: str, only: bool) -> Birth:
        """The birth, in words."""
        graph, nodes = self.model.graph, self.region(place)
        changed = self._changed(nodes)
        index = changed[0] if changed else nodes[-1]
        last = self.order[place - 1]
        value = max(graph.node[last].output, key=lambda name: self.off.get(name, 0.0))
        module, source = places.told(graph, index)
        growth = self._growth()
        before = [point.off for point in growth if point.place < place]
        return Birth(
            case=case, graph=graph.name, node=places.name_of(graph, index), operator=graph.node[index].op_type,
            value=value, off=self.off.get(value, float("inf")), before=before[-1] if before else 0.0, module=module,
            source=source, nodes=tuple(places.name_of(graph, i) for i in nodes), of=len(self.order),
            place=self.order.index(index) + 1, only=only, growth=growth,
        )  # fmt: skip

    def _reached(self, index: int) -> set[str]:
        """The nearest values before a node that can be told."""
        graph, producers = self.model.graph, _producers(self.model.graph)
        seen, edge, found = set[str](), [name for name in graph.node[index].input if name], set[str]()
        while edge:
            name = edge.pop()
            if name in self.off:
                found.add(name)
            elif name in producers and name not in seen:
                seen.add(name)
                edge += [before for before in graph.node[producers[name]].input if before]
        return found

    def _changed(self, nodes: list[int]) -> list[int]:
        """The nodes that the other graph has no equal of, by operator, attributes and constants."""
        if self.before is None or len(nodes) < 2:
            return []
        there = set(_signatures(self.before))
        own = _signatures(self.model)
        return [index for index in nodes if own[index] not in there]

    def _growth(self) -> tuple[Point, ...]:
        graph, points = self.model.graph, []
        for place, index in enumerate(self.order, 1):
            told = [self.off[name] for name in graph.node[index].output if name in self.off]
            if told:
                points.append(Point(place, places.name_of(graph, index), max(told)))
        return tuple(points)


class _Alike:
    """Finds a value among those that are known by what it holds."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._by_mark: dict[tuple[int, ...], list[tuple[float, str]]] = {}
        for name in known.order:
            value = known.value(name)
            self._by_mark.setdefault(value.shape, []).append((_size(value), name))

    def has(self, value: Array) -> bool:
        """Whether there is a value that is the same but for rounding."""
        size, others = _size(value), self._by_mark.get(value.shape, [])
        near = [name for other, name in others if abs(other - size) <= CLOSE * max(other, size)]
        return any(self._is(value, self._known.value(name)) for name in near)

    @staticmethod
    def _is(value: Array, right: Array) -> bool:
        close = partial(np.allclose, rtol=CLOSE, atol=CLOSE * _peak(right))
        return is_float(right) == is_float(value) and close(value, right)


def _size(value: Array) -> float:
    return float(np.sum(np.abs(value.astype(np.float64)))) if value.size else 0.0


def _peak(value: Array) -> float:
    return float(np.max(np.abs(value.astype(np.float64)), initial=0.0))


def _producers(graph: onnx.GraphProto) -> dict[str, int]:
    return {name: index for index, node in enumerate(graph.node) for name in node.output if name}


def _signatures(model: onnx.ModelProto) -> list[str]:
    """What each node is, whatever it is called: operator, attributes, and the constants it takes, in their places."""
    constants = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t).tobytes()
    return [_signature(node, constants) for node in model.graph.node]


def _signature(node: onnx.NodeProto, constants: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(f"{node.domain}.{node.op_type}".encode())
    for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
        digest.update(attribute.SerializeToString(deterministic=True))
    for place, name in enumerate(node.input):
        if name in constants:
            digest.update(f"{place}".encode() + constants[name])
    return digest.hexdigest()
