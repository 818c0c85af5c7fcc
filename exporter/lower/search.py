"""The search for what a precision cannot be had in: which nodes bring the error, found by running, a range at a time.

Pure: it is given a function that runs the model with some nodes lowered and says how far off it is. Errors of rounding
add up like noise, by their squares; so a range of nodes that errs little alone is done with, and one that errs much is
split. Whatever it adds up to, the last word has a run with all that is left lowered together.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import sqrt

# Of the error allowed, so much may be left: another runtime rounds in another order.
HEADROOM = 0.5
BRANCHES = 4

Excess = Callable[[Collection[int]], float]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        kept: the nodes that are not to be lowered, and what each brings alone, in units of the error allowed.
        excess: the error of all others together, in units of the error allowed.
        runs: how many runs it took.
    """

    kept: Mapping[int, float]
    excess: float
    runs: int

    @property
    def enough(self) -> bool:
        """Whether what is left is within the bound."""
        return self.excess <= 1.0


@dataclass(order=True)
class _Range:
    """Nodes ``first`` to ``end``, which alone err so much; a heap gives the largest first."""

    negative: float
    first: int = field(compare=False)
    end: int = field(compare=False)

    @property
    def alone(self) -> float:
        return -self.negative

    @property
    def nodes(self) -> range:
        return range(self.first, self.end)


def search(nodes: int, excess: Excess, most: int, over: Callable[[], bool] = lambda: False) -> Found:
    """Finds a small set of nodes without which the rest is within bounds.

    Args:
        nodes: how many there are, in the order they run.
        excess: runs the model with these nodes lowered; 1 is the error allowed.
        most: how many runs it may take; what is not told apart by then stays together.
        over: whether the time is up; then the best so far is what was found.
    """
    work = _Search(excess, most, over)
    every = frozenset(range(nodes))
    best = Found({}, work.run(every), 1)
    frontier = [_Range(-best.excess, 0, nodes)]
    kept: dict[int, float] = {}
    goal = HEADROOM
    while frontier and best.excess > HEADROOM and work.left > 0:
        largest = heapq.heappop(frontier)
        if len(largest.nodes) > 1 and work.left > BRANCHES:
            for first, end in _cut(largest):
                heapq.heappush(frontier, _Range(-work.run(range(first, end)), first, end))
            continue
        kept |= dict.fromkeys(largest.nodes, largest.alone)
        if _together(frontier) > goal and work.left > 1:
            continue
        found = Found(dict(kept), work.run(every - kept.keys()), work.runs)
        best = min(best, found, key=lambda f: f.excess)
        goal /= 2  # the sum was too hopeful: keep more before looking again
    return Found(best.kept, best.excess, work.runs)


def _together(frontier: Collection[_Range]) -> float:
    return sqrt(sum(part.alone**2 for part in frontier))


def _cut(whole: _Range) -> list[tuple[int, int]]:
    size = len(whole.nodes)
    places = sorted({whole.first + size * part // BRANCHES for part in range(BRANCHES + 1)})
    return list(pairwise(places))


class _Search:
    """Counts runs."""

    def __init__(self, excess: Excess, most: int, over: Callable[[], bool]) -> None:
        self._excess, self._most, self._over, self.runs = excess, most, over, 0

    @property
    def left(self) -> int:
        return 0 if self._over() else self._most - self.runs

    def run(self, lowered: Collection[int]) -> float:
        self.runs += 1
        return self._excess(lowered)
