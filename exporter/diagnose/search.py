"""The search for where an error is born: pure, it is given a function that looks at one place of the graph.

An error that reaches the output is in some value at every place after the one where it is born, and in none before it;
so halving finds it. Looking changes what is looked at: a value that is asked for breaks what a runtime would have fused
around it. Where the answer is another one while it is looked at, that place is not believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Seen(str, Enum):
    """What a place shows: values that are right, values that are wrong, or another answer than without looking."""

    RIGHT = "right"
    WRONG = "wrong"
    CHANGED = "changed"


@dataclass(frozen=True)
class Found:
    """Where the error is born.

    Attributes:
        last_right: so many nodes are right.
        first_wrong: after so many the error is there. Where this is more than one further, what lies between cannot
            be looked at without changing the answer.
        looks: how often was looked.
        exhausted: whether the search stopped for want of looks, and not because the answer changed.
    """

    last_right: int
    first_wrong: int
    looks: int
    exhausted: bool = False

    @property
    def vanishes(self) -> bool:
        """Whether the error is gone wherever it is looked for more closely."""
        return self.first_wrong - self.last_right > 1 and not self.exhausted


def born(count: int, look: Callable[[int], Seen], most: int, first: Sequence[int] = ()) -> Found:
    """Finds between which two places of a graph its error is born.

    Args:
        count: how many nodes there are; before the first all is right, after the last it is wrong.
        look: what the place after so many nodes shows.
        most: how often it may look.
        first: places to look at before it halves: where another case has it.
    """
    low, high, looks, unusable, wanted = 0, count, 0, set[int](), list(first)
    while high - low > 1:
        middle = (low + high) // 2
        open_ = [place for place in range(low + 1, high) if place not in unusable]
        if not open_ or looks >= most:
            return Found(low, high, looks, exhausted=bool(open_))
        wanted = [place for place in wanted if place in open_]
        place = wanted[0] if wanted else min(open_, key=lambda place: abs(place - middle))
        looks += 1
        seen = look(place)
        if seen is Seen.CHANGED:
            unusable.add(place)
        elif seen is Seen.WRONG:
            high = place
        else:
            low = place
    return Found(low, high, looks)
