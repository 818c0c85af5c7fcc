"""Eager PyTorch in a lower precision: float32 arithmetic with every value rounded after every operation.

The yardstick of a lowered graph. Eager fp16 itself is hundreds of times too slow on a CPU; it rounds at the same
places, and small blocks are checked against it. A tensor that the type cannot hold (it would overflow, where float32
does not) stays in float32, as every mixed-precision recipe has it: otherwise one overflow would make the yardstick
infinite, and any graph right.

TF32 is another matter: the values stay float32, and a GPU's tensor cores round what goes into a product.
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
TF32 = "tf32"
# The operators whose operands tensor cores round, by the names of ATen; what is written in them reaches us as these.
PRODUCTS = frozenset({
    "_convolution", "_scaled_dot_product_flash_attention_for_cpu", "addbmm", "addmm", "addmv", "baddbmm", "bmm",
    "convolution", "linear", "mkldnn_rnn_layer", "mm", "mv",
})  # fmt: skip


def rounded_module(module: nn.Module, precision: str) -> nn.Module:
    """A copy of a float32 module whose weights and buffers are rounded to a precision, still held in float32."""
    double = copy.deepcopy(module)
    if precision == TF32:  # they are rounded on the way into a product, and nowhere else
        return double
    kind = TYPES[precision]
    with torch.no_grad():
        for tensor in (*double.parameters(), *double.buffers()):
            if tensor.dtype == torch.float32:
                tensor.copy_(rounded(tensor, kind))
    return double


def rounded(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """The tensor as the type holds it, in float32; itself where that would overflow."""
    low = tensor.to(kind).to(torch.float32)
    return low if torch.isfinite(low).all() or not torch.isfinite(tensor).all() else tensor


def to_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """A float32 tensor with 10 bits of mantissa, rounded to the nearest, ties to even."""
    bits = tensor.contiguous().view(torch.int32)
    kept = (bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF
    return torch.where(torch.isfinite(tensor), kept.view(torch.float32), tensor)


@contextmanager
def rounding(precision: str) -> Iterator[None]:
    """Rounds what every operation inside gives; in TF32, what goes into a product."""
    mode = _Operands() if precision == TF32 else _Rounding(TYPES[precision])  # type: ignore[no-untyped-call]
    with mode:
        yield


class _Operands(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Below every operator: the float32 operands of a product are rounded to TF32, its result is not."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func._schema.name.removeprefix("aten::") in PRODUCTS:
            args = tree_map_only(torch.Tensor, self._round, args)
        return func(*args, **(kwargs or {}))

    def _round(self, tensor: torch.Tensor) -> torch.Tensor:
        return to_tf32(tensor) if tensor.dtype == torch.float32 else tensor


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
