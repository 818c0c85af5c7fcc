"""What host steps pass on: named arrays, and records of what a step before the graph did, for a step after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Refused, nearest

Array: TypeAlias = NDArray[np.generic]
Values: TypeAlias = dict[str, Array]

# ``NAME.size`` is written by pad, ``NAME.tiles`` by tile, ``NAME.samples`` by frames.
RECORDS = (".size", ".tiles", ".samples")


def is_record(name: str) -> bool:
    """Whether a value is a step's note for a later step, and not data: no graph reads it, no file needs it."""
    return name.endswith(RECORDS)


def records(values: Mapping[str, Array]) -> Values:
    """The records among the values: what the steps after the graph need of the steps before it."""
    return {name: value for name, value in values.items() if is_record(name)}


def required(values: Mapping[str, Array], name: str, step: str) -> Array:
    """The value of that name.

    Raises:
        Refused: ``bad-sample`` when it is absent.
    """
    if name not in values:
        known = [known for known in values if not is_record(known)]
        raise Refused(
            "bad-sample",
            f"there is no {name!r} for step {step}{nearest(name, known)}",
            where=f"host step {step}; values {', '.join(known) or 'none'}",
            why="a step works on what the file and the steps before it give",
            next=f"name the array in the file {name}, or give a file of the kind the model reads",
        )
    return values[name]


def unfit(step: str, what: str, why: str, next: str) -> Refused:
    """The refusal of a value that a step cannot work on."""
    return Refused("bad-sample", what, where=f"host step {step}", why=why, next=next)


def bad_setting(step: str, what: str, why: str) -> Refused:
    """The refusal of an option of a step: the definition or the manifest is wrong, not the user's file."""
    remedy = "correct the step's options in the definition, and export again"
    return Refused("unknown-step", what, where=f"host step {step}", why=why, next=remedy)


def names_in(of: str | Iterable[str]) -> list[str]:
    """The names that an option ``of`` holds: one, or a list of them."""
    return [of] if isinstance(of, str) else list(of)
