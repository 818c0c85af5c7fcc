"""Specimens of definitions with options, and networks with seeded weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from exporter import registry
from exporter.define import seed_weights
from exporter.spec import ModelDef
from tests.fakes import lab

TARGETS = ("openvino", "mobile")
BLOCKS = (
    "raft-conv-gru", "raft-conv-gru-hx", "context-conv-gru", "selective-conv-gru", "selective-conv-gru-fused",
    "channel-attention", "spatial-attention", "contextual-attention", "correlation-lookup", "convex-upsample",
)  # fmt: skip


def specimen(name: str, folder: Path, dims: tuple[str, ...] = (), **options: Any) -> lab.Specimen:
    """The lab's specimen of the definition that ``options`` make, at the lab's small dims or at ``dims``."""
    right = registry.model

    def with_options(asked: str, given: Mapping[str, Any] | None = None) -> ModelDef:
        made = right(asked, {**options, **(given or {})} if asked == name else given)
        return made.with_dims(dims)

    with mock.patch.object(registry, "model", with_options):
        return lab.specimen(name, folder)


def built(name: str, **options: Any) -> nn.Module:
    """The definition's module with seeded weights, in float64 and eval mode."""
    return seeded(registry.model(name, options).build())


def seeded(module: nn.Module) -> nn.Module:
    """The module with seeded weights, in float64 and eval mode."""
    seed_weights(module, 0)
    return module.double().eval()


def meta(name: str, **options: Any) -> nn.Module:
    """The definition's module without memory for its weights."""
    with torch.device("meta"):
        return registry.model(name, options).build().eval()


def drawn(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Uniform float64 values."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * values


def pair(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two images."""
    left, right = (drawn(1, 3, height, width, seed=seed, low=0.0, high=255.0) for seed in (1, 2))
    return left, right
