"""Eager PyTorch in a lower precision: float32 arithmetic with every value rounded after every operation.

The yardstick of a lowered graph. Eager fp16 itself is hundreds of times too slow on a CPU; it rounds at the same
places, and small blocks are checked against it. A tensor that the type cannot hold (it would overflow, where float32
does not) stays in float32, as every mixed-precision recipe has it: otherwise one overflow would make the yardstick
infinite, and any graph right.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def rounded_module(module: nn.Module, precision: str) -> nn.Module:
    """A copy of a float32 module whose weights and buffers are rounded to a precision, still held in float32."""
    kind, double = TYPES[precision], copy.deepcopy(module)
    with torch.no_grad():
        for tensor in (*double.parameters(), *double.buffers()):
            if tensor.dtype == torch.float32:
                tensor.copy_(rounded(tensor, kind))
    return double


def rounded(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """The tensor as the type holds it, in float32; itself where that would overflow."""
    low = tensor.to(kind).to(torch.float32)
    return low if torch.isfinite(low).all() or not torch.isfinite(tensor).all() else tensor


@contextmanager
def rounding(precision: str) -> Iterator[None]:
    """Rounds what every operation inside gives."""
    with _Rounding(TYPES[precision]):
        yield


class _Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Below every operator: the float32 tensors it computes are rounded; views of others are rounded already."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kind = kind

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        if any(r.alias_info is not None and r.alias_info.is_write for r in returns):  # in place: so is the rounding
            return tree_map_only(torch.Tensor, self._round_in_place, outputs)
        if any(r.alias_info is not None for r in returns):
            return outputs
        return tree_map_only(torch.Tensor, self._round, outputs)

    def _round(self, tensor: torch.Tensor) -> torch.Tensor:
        return rounded(tensor, self._kind) if tensor.dtype == torch.float32 else tensor

    def _round_in_place(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.copy_(self._round(tensor)) if tensor.dtype == torch.float32 else tensor
