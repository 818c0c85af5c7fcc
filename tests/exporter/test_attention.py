"""Attention of every number of axes, with every kind of mask, is what eager PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort  # the second opinion
import pytest
import torch
from torch import nn
from torch.nn import functional

from exporter import define
from exporter.spec import Dim, ModelDef, Tensor
from exporter.trace import trace
from model_defs._timm import library

LEADING: dict[str, tuple[int | str, ...]] = {"none": (), "one": ("B",), "heads": ("B", 3), "windows": ("B", 2, 3)}
# Of the mask, before (L, S), for each; None where it is broadcast over all.
MASKS: dict[str, tuple[tuple[int | str, ...] | None, ...]] = {
    "none": (None,), "one": (None, ("B",)), "heads": (None, (3,)), "windows": (None, (3,), ("B", 1, 3)),
}  # fmt: skip


class Attention(nn.Module):
    """Attention of what it is given; with a mask of floats or of truth values, or a causal one."""

    def __init__(self, kind: str, scale: float | None) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        given = {"float": mask, "bool": mask > -1.5, "none": None, "causal": None}[self.kind]
        found = functional.scaled_dot_product_attention(
            q, k, v, given, is_causal=self.kind == "causal", scale=self.scale
        )
        return found + 0 * mask.sum()


def compared(axes: str, kind: str, leading: tuple[int | str, ...] | None, scale: float | None, folder: Path) -> None:
    before = LEADING[axes]
    inputs = (
        Tensor("q", (*before, "L", 4)), Tensor("k", (*before, 6, 4)), Tensor("v", (*before, 6, 5)),
        Tensor("mask", (*(leading or ()), "L", 6)),
    )  # fmt: skip
    dims = tuple(d for d in (Dim("B", 1, 2, 4), Dim("L", 2, 5, 9)) if any(d.name in t.shape for t in inputs))
    module = Attention(kind, scale)
    made = ModelDef("fake", "fake", lambda: module, inputs, (Tensor("y", (*before, "L", 5)),), "s", "l", dims=dims)
    define.set_eval(module)
    model = trace(made, module, folder / "traced.onnx").load()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for sizes in ({"B": 1, "L": 9}, {"B": 3, "L": 5}):
        torch.manual_seed(0)
        given = {t.name: torch.randn(t.sized(sizes)) for t in inputs}
        want = module(*given.values()).numpy()
        (found,) = session.run(None, {name: value.numpy() for name, value in given.items()})
        assert found.shape == want.shape
        np.testing.assert_allclose(found, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["none", "causal"])
@pytest.mark.parametrize("axes", LEADING)
def test_attention_of_any_number_of_axes(axes: str, kind: str, tmp_path: Path) -> None:
    compared(axes, kind, None, 0.3 if kind == "causal" else None, tmp_path)


@pytest.mark.parametrize("kind", ["float", "bool"])
@pytest.mark.parametrize(("axes", "leading"), [(axes, mask) for axes, masks in MASKS.items() for mask in masks])
def test_masks_of_any_number_of_axes(
    axes: str, leading: tuple[int | str, ...] | None, kind: str, tmp_path: Path
) -> None:
    compared(axes, kind, leading, None, tmp_path)


def test_a_view_of_what_attention_gives(tmp_path: Path) -> None:
    """What eager may view, taken apart has another layout: of timm's windowed attention with a bias."""
    library()
    from timm.models.maxxvit import MaxxVitTransformerCfg, PartitionAttentionCl

    torch.manual_seed(0)
    windows = MaxxVitTransformerCfg(window_size=(8, 8), grid_size=(8, 8), rel_pos_type="mlp", rel_pos_dim=64)
    module, shape = PartitionAttentionCl(64, "block", windows), (1, 16, 16, 64)
    made = ModelDef("fake", "fake", lambda: module, (Tensor("x", shape),), (Tensor("y", shape),), "s", "l")
    define.set_eval(module)
    session = ort.InferenceSession(trace(made, module, tmp_path / "traced.onnx").load().SerializeToString())
    x = torch.randn(shape)
    (found,) = session.run(None, {"x": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, module(x).numpy(), rtol=0, atol=2e-6)
