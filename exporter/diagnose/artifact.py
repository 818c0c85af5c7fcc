"""Where an artifact goes wrong: the graph it is compiled from is right, and what the target makes of it is not.

The graph is compiled by the very target with what crosses a place among its outputs, place after place, until two
neighbours are found of which one is right and the next is wrong. Each time the answer must be the one that it is
without looking; else that place is not believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from exporter.diagnose import cuts, places
from exporter.diagnose.known import Array, Known, bound
from exporter.diagnose.probing import Workbench, inputs_of, size_of, types_of, with_outputs
from exporter.diagnose.result import Birth, Point
from exporter.diagnose.search import Found, Seen, born

# So much of the error may change while it is looked at, for rounding in another order.
SAME = 0.25
# More than this is not fetched at once.
MOST_BYTES = 512 << 20
MOST_LOOKS = 32
# What is around a node is compiled with it, so many nodes further each time, until it fails as it does inside.
WINDOWS = (0, 1, 3, 8, 24)

Told = Callable[[str, int, int], None]


@dataclass
class Inside:
    """One graph, one input, one target.

    Attributes:
        model: the graph.
        feeds: what it is given.
        known: its right values.
        bench: compiles it.
        tell: told what is looked at.
    """

    model: onnx.ModelProto
    feeds: Mapping[str, Array]
    known: Known
    bench: Workbench
    tell: Told
    growth: dict[int, Point] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.types, self.order = types_of(self.model), cuts.depending(self.model.graph)
        self.answer = self.bench.run(self.model, self.feeds)
        self.final = self.known.off(self.answer)
        self.bound = bound(self.final.values())

    def answers(self, before: Mapping[str, Array]) -> bool:
        """Whether the answer, compiled here and not looked at, is as wrong as another one, and in the same way."""
        return all(
            unchanged(self.answer[name], before[name], self.known.value(name))
            for name, off in self.known.off(before).items()
            if off > self.bound
        )

    def born(self, first: Sequence[int] = ()) -> Found:
        """Between which two places the error is born; those of another case are looked at first."""
        found = born(len(self.order), self.look, MOST_LOOKS, first)
        self.growth[len(self.order)] = Point(len(self.order), self._node(len(self.order)), max(self.final.values()))
        return found

    def look(self, place: int) -> Seen:
        """What the values are that cross a place."""
        self.tell("place", place, len(self.order))
        names = self._crossing(place)
        values, same = self._seen(names)
        if not same:
            return Seen.CHANGED
        largest = max(self.known.off(values).values(), default=0.0)
        self.growth[place] = Point(place, self._node(place), largest)
        return Seen.WRONG if largest > self.bound else Seen.RIGHT

    def off_at(self, place: int) -> dict[str, float]:
        """How far off the values are that one node gives; nothing where looking changes the answer."""
        names = [name for name in self.model.graph.node[self.order[place - 1]].output if name in self.known]
        values, same = self._seen(names)
        return self.known.off(values) if same else {}

    def _crossing(self, place: int) -> list[str]:
        return [name for name in cuts.crossing(self.model.graph, self.order, place) if name in self.known]

    def _seen(self, names: list[str]) -> tuple[dict[str, Array], bool]:
        """Inner values, and whether the answer is what it is without looking; few enough to be held at a time."""
        values, same = dict[str, Array](), True
        for some in _batches(names, self.known):
            model, outputs = with_outputs(self.model, some, self.types, {name: self.known.value(name) for name in some})
            given = self.bench.run(model, self.feeds)
            values |= {name: given[output] for name, output in outputs.items()}
            same = same and self._same(given)
        return values, same

    def _same(self, given: Mapping[str, Array]) -> bool:
        return all(
            unchanged(given[name], self.answer[name], self.known.value(name))
            for name, off in self.final.items()
            if off > self.bound
        )

    def _node(self, place: int) -> str:
        return places.name_of(self.model.graph, self.order[place - 1])

    # ------------------------------------------------------------------------------------------- what was found

    def fails_apart(self, found: Found) -> tuple[list[int], bool]:
        """The fewest nodes around the birth that are wrong by themselves, given what is right; and whether any are."""
        for margin in WINDOWS:
            first = max(found.last_right - margin, 0)
            end = min(found.first_wrong + margin, len(self.order))
            nodes = self.order[first:end]
            self.tell(f"apart, {len(nodes)} nodes", margin, WINDOWS[-1])
            if self._apart_off(nodes) > self.bound:
                return nodes, True
        return self.order[found.last_right : found.first_wrong], False

    def rest_is_right(self, place: int) -> bool | None:
        """Whether what comes after a place is right, given what is right before it; None where nothing comes."""
        nodes = self.order[place:]
        return self._apart_off(nodes) <= self.bound if nodes else None

    def _apart_off(self, nodes: list[int]) -> float:
        part = self.part(nodes)
        given = self.bench.run(part, {value.name: self.known.value(value.name) for value in inputs_of(part)})
        return max(self.known.off(given).values(), default=0.0)

    def part(self, nodes: list[int]) -> onnx.ModelProto:
        """Some nodes as a graph of their own."""
        return cuts.part(self.model, nodes, self.known)

    def birth(self, found: Found, case: str) -> Birth:
        """The birth, in words."""
        graph, index = self.model.graph, self.order[found.first_wrong - 1]
        off = self.off_at(found.first_wrong) if not found.vanishes else {}
        value = max(off, key=lambda name: off[name]) if off else graph.node[index].output[0]
        module, source = places.told(graph, index)
        before = self.growth.get(found.last_right)
        after = self.growth.get(found.first_wrong)
        return Birth(
            case=case, graph=graph.name, node=places.name_of(graph, index), operator=graph.node[index].op_type,
            value=value, off=off.get(value, after.off if after else float("inf")), before=before.off if before else 0.0,
            module=module, source=source, of=len(self.order), place=found.first_wrong,
            nodes=tuple(places.name_of(graph, i) for i in self.order[found.last_right : found.first_wrong]),
            growth=tuple(self.growth[place] for place in sorted(self.growth)),
        )  # fmt: skip


def unchanged(given: Array, before: Array, right: Array) -> bool:
    """Whether an answer is wrong in the way it was, but for rounding: its change is small beside its error."""
    if given.shape != before.shape or given.shape != right.shape:
        return given.shape == before.shape
    if not np.issubdtype(before.dtype, np.floating):
        return bool(np.array_equal(given, before))
    finite = np.isfinite(before) & np.isfinite(right)
    if not np.array_equal(np.isfinite(given), np.isfinite(before)):
        return False
    error = np.linalg.norm((before.astype(np.float64) - right)[finite])
    change = np.linalg.norm((given.astype(np.float64) - before)[finite])
    return bool(change <= SAME * error)


def _batches(names: list[str], known: Known) -> list[list[str]]:
    """The values, so many at a time as may be held."""
    batches, held = [list[str]()], 0
    for name in names:
        size = size_of([known.value(name)])
        if batches[-1] and held + size > MOST_BYTES:
            batches.append([])
            held = 0
        batches[-1].append(name)
        held += size
    return batches
