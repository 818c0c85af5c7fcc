"""One thread: the sizes here are too small to share, and other processes use the cores as well."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporter import define, registry


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """Selective-IGEV with seeded weights, in eval mode; tests change nothing of it."""
    return define.weighted(registry.model("selective-igev"), None, 0)[0]


@pytest.fixture(scope="session")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of 64 x 96 pixels, noise of 0 to 255."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(1, 3, 64, 96, generator=generator) * 255 for _ in range(2))
    return left, right
