"""Decisions: where a model makes whole numbers of real ones, and which of those hang on rounding alone.

A class, a rank or a truth value has no error of its own: it is the same or it is another. It may rightly be another
where two scores tie, or lie closer to each other than any arithmetic in that precision can tell apart. So the model is
run again with what it decides upon moved by as much as rounding may move it, and what then changes is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

# What puts scores in an order: PyTorch leaves open which of two that are equal comes first, and runtimes differ.
ORDERING = frozenset(
    {"topk", "sort", "argsort", "argmax", "argmin", "max.dim", "min.dim", "kthvalue", "mode", "median"}
)
# What compares or rounds: defined for values that are equal, so that only what rounding moves may move the answer.
ROUNDING = frozenset(
    {"gt", "ge", "lt", "le", "eq", "ne", "floor", "ceil", "round", "trunc", "sign", "bucketize", "searchsorted"}
    | {"floor_divide", "nonzero", "_to_copy"}
)
# Each with its opposite: a tie of two falls the other way in one of the pair.
DRAWS = 8


def undecided(
    outputs: Mapping[str, NDArray[Any]],
    decided: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]],
    run: Callable[[], Mapping[str, NDArray[Any]]],
    within: float,
) -> dict[str, NDArray[np.bool_]]:
    """Which elements of whole-number outputs hang on rounding, ``{output: mask}``; outputs without any are left out.

    Args:
        outputs: what the model gave, by name.
        decided: what was decided upon, in order (:func:`noted`), in the reference and in the model's own precision.
        run: computes the reference again.
        within: how many times the model's own rounding an artifact's may be.
    """
    whole = {name: y for name, y in outputs.items() if not np.issubdtype(y.dtype, np.floating)}
    masks = {name: np.zeros(y.shape, np.bool_) for name, y in whole.items()}
    for draw in range(DRAWS):
        with _Deciding(_moving(*decided, within, seed=draw // 2, sign=(-1) ** draw)):
            again = run()
        for name, y in whole.items():
            masks[name] |= again[name] != y if again[name].shape == y.shape else True
    return {name: mask for name, mask in masks.items() if mask.any()}


@contextmanager
def noted() -> Iterator[list[torch.Tensor]]:
    """What is decided upon inside, in order."""
    seen: list[torch.Tensor] = []

    def note(scores: torch.Tensor, _: bool) -> torch.Tensor:
        seen.append(scores.detach().clone())
        return scores

    with _Deciding(note):
        yield seen


class _Deciding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Below every operator: what a decision is given goes through a function first, told whether it is an ordering."""

    def __init__(self, given: Callable[[torch.Tensor, bool], torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._given = given

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        ordering = bool({name, f"{name}.{func._overloadname}"} & ORDERING)
        if ordering or (name in ROUNDING and not (name == "_to_copy" and _to_real(kwargs.get("dtype")))):
            args = tuple(self._given(a, ordering) if _real(a) else a for a in args)
        return func(*args, **kwargs)


def _to_real(kind: torch.dtype | None) -> bool:
    return kind is None or kind.is_floating_point


def _real(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _moving(
    exact: Sequence[torch.Tensor], own: Sequence[torch.Tensor], within: float, seed: int, sign: int
) -> Callable[[torch.Tensor, bool], torch.Tensor]:
    """Moves every element of what is decided upon by at most what rounding may."""
    alike = [a.shape for a in exact] == [b.shape for b in own]  # else the two took other ways, and nothing is known
    pairs = zip(exact, own, strict=True) if alike else ()
    errors = iter([_error(a.double(), b.double()) for a, b in pairs])
    generator = torch.Generator().manual_seed(seed)

    def moved(scores: torch.Tensor, ordering: bool) -> torch.Tensor:
        unit = torch.finfo(torch.float32).eps * _largest(scores)
        amount = within * next(errors, unit)
        if ordering:  # scores that are equal have no order, however exact they are
            amount = max(amount, unit, torch.finfo(torch.float32).tiny)
        drawn = torch.rand(scores.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return scores + (sign * amount * drawn).to(scores.dtype)

    return moved


def _error(exact: torch.Tensor, own: torch.Tensor) -> float:
    """What rounding made of it, at most; whole numbers differ by decisions before, and not by rounding."""
    return 0.0 if all(torch.equal(x, x.round()) for x in (exact, own)) else _largest(exact - own)


def _largest(values: torch.Tensor) -> float:
    """The largest of the finite values, without their sign; 0 where there are none."""
    finite = values[values.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0
