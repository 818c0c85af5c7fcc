"""Attention of any number of axes: PyTorch's own translation to ONNX is for four, and gives up on others.

``(L, E)``, one head ``(batch, L, E)``, and heads in windows ``(batch, windows, heads, L, E)`` become four axes and go
back. Semantics: https://pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.nn import functional

FOUR = 4


@contextmanager
def captured() -> Iterator[None]:
    """Within it attention gives its result in one layout, row by row.

    The CPU's kernel gives another than what attention is taken apart into, and a program that views its result in the
    first way cannot be translated.
    """
    of_torch = functional.scaled_dot_product_attention

    def by_rows(*args: Any, **kwargs: Any) -> torch.Tensor:
        return of_torch(*args, **kwargs).contiguous()

    with mock.patch.object(functional, "scaled_dot_product_attention", by_rows):
        yield


def translations() -> dict[Any, Callable[..., Any]]:
    """The ONNX translation of attention, for ``torch.onnx.export(custom_translation_table=...)``."""
    return {torch.ops.aten.scaled_dot_product_attention.default: _attention}


def _attention(  # type: ignore[no-untyped-def]
    query, key, value, attn_mask=None, dropout_p: float = 0.0, is_causal: bool = False, scale=None,
    enable_gqa: bool = False,
):  # fmt: skip
    from onnxscript import opset18 as op
    from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention as of_four_axes

    options = (dropout_p, is_causal, scale, enable_gqa)
    if len(query.shape) == FOUR:
        return of_four_axes(query, key, value, attn_mask, *options)
    if attn_mask is not None and len(attn_mask.shape) > 2:
        # Of every query and key, for every place of the leading axes: what is broadcast there may be told apart here.
        whole = op.Expand(
            attn_mask, op.Concat(op.Shape(query, start=0, end=-1), op.Shape(key, start=-2, end=-1), axis=0)
        )
        whole.shape, whole.dtype = attn_mask.shape, attn_mask.dtype
        attn_mask = _in_four(op, whole, len(query.shape))
    four = [_in_four(op, tensor, len(query.shape)) for tensor in (query, key, value)]
    found = of_four_axes(*four, attn_mask, *options)
    return op.Reshape(found, op.Concat(op.Shape(query, start=0, end=-1), op.Shape(value, start=-1), axis=0))


def _in_four(op: Any, tensor: Any, axes: int) -> Any:
    """A tensor of so many axes in four: leading ones become one, missing ones are 1."""
    from onnxscript import ir

    leading, kept = ([-1], 3) if axes > FOUR else ([-1, 1] if axes == 3 else [1, 1], 2)
    sizes = op.Concat(op.Constant(value_ints=leading), op.Shape(tensor, start=-kept), axis=0)
    four = op.Reshape(tensor, sizes)
    # Nobody infers shapes and types while a graph is being written, and the translation for four asks for both.
    four.shape, four.dtype = ir.Shape([None] * (FOUR - kept) + list(tensor.shape[-kept:])), tensor.dtype
    return four
