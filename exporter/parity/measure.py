"""Measuring: two named tensor maps in, figures out. Pure, total: no early return, no ``zip`` that truncates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Element errors are counted by size, in units of the reference's root mean square: powers of ten from the first to the
# last, each in two. What is smaller or larger is in the piece at that end; an exact element is in none.
FIRST_POWER, LAST_POWER, PIECES = -12, 2, 2
EDGES = 10.0 ** np.arange(FIRST_POWER, LAST_POWER + 1 / PIECES, 1 / PIECES)


@dataclass(frozen=True)
class Measurement:
    """One output of one case, measured against the float64 reference; every figure over all elements.

    Attributes:
        case: the case's name.
        output: the output's name.
        problem: what is wrong before values can be compared (missing, extra, dtype, shape), or None.
        elements: how many were compared.
        bad_reference: NaN or infinite elements in the reference.
        bad: NaN or infinite elements in the output, and where the first is.
        first_bad: flat index of the first, or None.
        error_l2: ``|y - y64|``.
        reference_l2: ``|y64|``.
        reference_max: largest ``|y64|``.
        max_abs: largest ``|y - y64|``.
        exact: whether every element is equal (all that counts for integers).
        integer: whether the reference is of an integer or boolean type.
        undecided: integers that hang on rounding alone, which any answer is right for; they are not compared.
        noise: eager's own relative L2 error for this case and output.
        noise_max_abs: eager's own largest element error.
        moved: relative difference of the reference from the first case of the same shape.
        followed: how far off the way is that the output changes from the first case of its shape, relative to how the
            reference does; None for the first, or where the reference does not change.
        scale: the case's scale, the group within which noise is compared.
        drift: for a sequence, the relative L2 error after each step.
        drift_noise: the same for eager.
        histogram: how many elements are exact, then how many are off by how much (:data:`EDGES`).
    """

    case: str
    output: str
    problem: str | None = None
    elements: int = 0
    bad_reference: int = 0
    bad: int = 0
    first_bad: int | None = None
    error_l2: float = 0.0
    reference_l2: float = 0.0
    reference_max: float = 0.0
    max_abs: float = 0.0
    exact: bool = False
    integer: bool = False
    undecided: int = 0
    noise: float = 0.0
    noise_max_abs: float = 0.0
    moved: float = 0.0
    followed: float | None = None
    scale: str = ""
    drift: tuple[float, ...] = ()
    drift_noise: tuple[float, ...] = ()
    histogram: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The measurement for the way from a child to its parent."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Measurement:
        """The measurement a child sent."""
        lists = {name: tuple(value.get(name, ())) for name in ("drift", "drift_noise", "histogram")}
        return cls(**{**value, **lists})


def relative(error: float, size: float) -> float:
    """``error / size``; where the reference is all zero, 0 for an exact answer and infinity for any other."""
    if size > 0.0:
        return error / size
    return 0.0 if error == 0.0 else float("inf")


def l2(x: NDArray[np.float64]) -> float:
    """Euclidean length, scaled so that neither tiny nor huge values are lost on the way."""
    largest = float(np.max(np.abs(x), initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    flat = x.ravel() / largest
    return largest * float(np.sqrt(np.dot(flat, flat)))


def compare(
    case: str, output: str, y: Array | None, y64: Array, dtype: str, undecided: Array | None = None
) -> Measurement:
    """Measures one output.

    Args:
        case: the case's name.
        output: the output's name.
        y: what the artifact gave, or None when it gave nothing under that name.
        y64: the reference; float64, or integers.
        dtype: the type the output must have.
        undecided: which elements hang on rounding alone, of integers.
    """
    problem = _form_problem(y, y64, dtype)
    if problem is not None or y is None:
        return Measurement(case, output, problem=problem)
    integer = not np.issubdtype(y64.dtype, np.floating)
    if integer:
        open_ = np.zeros(y64.shape, np.bool_) if undecided is None else undecided
        wrong, left = int(np.count_nonzero((y != y64) & ~open_)), int(np.count_nonzero(open_))
        return Measurement(
            case, output, elements=y.size, exact=not wrong, integer=True, undecided=left, max_abs=float(wrong)
        )
    bad = ~np.isfinite(y)
    bad_reference = int(np.count_nonzero(~np.isfinite(y64)))
    count = int(np.count_nonzero(bad))
    if count or bad_reference:
        first = int(np.argmax(bad.ravel())) if count else None
        return Measurement(case, output, elements=y.size, bad_reference=bad_reference, bad=count, first_bad=first)
    difference = y.astype(np.float64) - y64
    return Measurement(
        case,
        output,
        elements=y.size,
        error_l2=l2(difference),
        reference_l2=l2(y64),
        reference_max=float(np.max(np.abs(y64), initial=0.0)),
        max_abs=float(np.max(np.abs(difference), initial=0.0)),
        exact=not difference.any(),
        histogram=histogram(difference, y64),
    )


def histogram(difference: NDArray[np.float64], y64: Array) -> tuple[int, ...]:
    """How many elements are exact, then how many are off by how much, in units of the reference's root mean square.

    Returns:
        ``1 + len(EDGES) - 1`` counts, which sum to the elements; nothing where the reference is all zero.
    """
    size = l2(y64) / np.sqrt(max(y64.size, 1))
    if not size or not np.isfinite(size):
        return ()
    off = np.abs(difference[difference != 0.0]) / size
    counts, _ = np.histogram(np.clip(off, EDGES[0], EDGES[-1]), EDGES)
    return (int(difference.size - off.size), *map(int, counts))


def _form_problem(y: Array | None, y64: Array, dtype: str) -> str | None:
    if y is None:
        return "the output is missing"
    if y.dtype != np.dtype(dtype):
        return f"its type is {y.dtype}, not {dtype}"
    if y.shape != y64.shape:
        return f"its shape is {y.shape}, not {y64.shape}"
    return None


def extra_outputs(case: str, given: Mapping[str, Array], wanted: Mapping[str, str]) -> list[Measurement]:
    """A measurement with a problem for every output nobody declared."""
    return [Measurement(case, name, problem="nobody declared this output") for name in given if name not in wanted]


def step_errors(y: Array, y64: Array, axis: int, steps: int) -> tuple[float, ...]:
    """Relative L2 error after each step of a sequence, over the slice that the step gave."""
    pieces = zip(np.split(y, steps, axis), np.split(y64, steps, axis), strict=True)
    return tuple(relative(l2(a.astype(np.float64) - b), l2(b.astype(np.float64))) for a, b in pieces)
