"""The network is wired as published: against plain functions of its weights that share no code with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporter.define import seed_weights

from . import oracle
from .parts import module


@pytest.fixture(scope="module")
def double() -> nn.Module:
    """Selective-IGEV with attention maps and seeded weights, in float64."""
    network: nn.Module = module("network").SelectiveIGEV(iterations=2, attention_map=True)
    seed_weights(network, 0)
    return network.double().eval()


def noise(width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 64, width, generator=generator, dtype=torch.float64) * 255 for _ in range(2)]


@torch.no_grad()
@pytest.mark.parametrize("width", [64, 96])
def test_the_network_is_its_equations(double: nn.Module, width: int) -> None:
    images = noise(width)
    for found, wanted in zip(double(*images), oracle.selective_igev(double.state_dict(), *images, 2), strict=True):
        assert wanted.std() > 0, "a constant would show nothing"
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10 * wanted.abs().max().item())
