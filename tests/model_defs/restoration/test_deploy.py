"""The deployed forms compute what the published ones compute; in float64 nothing but rounding is between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from exporter import define, registry
from model_defs.restoration.deploy import deploy_ffn, deploy_mdta, deploy_restormer

from .specimens import SMALL


def made(name: str, options: dict[str, Any]) -> nn.Module:
    return define.weighted(registry.model(name, options), None, 0)[0].double()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options", "deploy", "channels"),
    [
        ("mdta", {"dim": 12, "heads": 3}, deploy_mdta, 12),
        ("mdta", {"dim": 12, "heads": 3, "bias": True}, deploy_mdta, 12),
        ("conv-gated-ffn", {"dim": 6}, deploy_ffn, 6),
        ("conv-gated-ffn", {"dim": 6, "bias": True}, deploy_ffn, 6),
        ("restormer", SMALL, deploy_restormer, 3),
        ("restormer", {**SMALL, "variant": "denoise"}, deploy_restormer, 3),
        ("restormer", {**SMALL, "bias": True}, deploy_restormer, 3),
        ("restormer", {**SMALL, "variant": "dual-pixel"}, deploy_restormer, 6),
    ],
)
def test_deployed_is_published(
    name: str, options: dict[str, Any], deploy: Callable[[nn.Module], nn.Module], channels: int
) -> None:
    module = made(name, options)
    before = define.weights_digest(module)
    x = torch.rand((2, channels, 16, 24), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(deploy(module)(x), module(x), rtol=1e-10, atol=1e-12)
    assert define.weights_digest(module) == before


@torch.no_grad()
def test_a_channel_that_is_zero_everywhere_stays_finite() -> None:
    """Its length is 0, and neither form divides by it."""
    module, x = made("mdta", {"dim": 4}), torch.zeros(1, 4, 4, 4, dtype=torch.float64)
    assert torch.equal(module(x), torch.zeros_like(x)) and torch.equal(deploy_mdta(module)(x), torch.zeros_like(x))
