"""The whole network against a plain function of its weights, written from the equations and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from exporter import define, registry

from . import oracle

# Several blocks and heads, and another number on every level: no two levels may be taken for one another.
SHAPE = {"dim": 12, "blocks": "1,2,1,2", "refinement": 2, "heads": "2,1,4,3"}


def drawn(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in float64, all of them random: at its initial value a scale, a bias or a temperature hides mistakes."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / max(1, tensor[0].numel()) ** 0.5
        + (tensor.ndim == 1 and name.endswith("weight"))
        for name, tensor in state.items()
    }


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"variant": "color"},
        {"variant": "denoise"},
        {"variant": "gray"},
        {"variant": "dual-pixel"},
        {"variant": "color", "bias": True},
        {"variant": "dual-pixel", "bias": True},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_the_network_is_the_published_one(options: dict[str, Any]) -> None:
    definition = registry.model("restormer", {**SHAPE, **options})
    module = define.weighted(definition, None, 0)[0].double()
    weights = drawn(module.state_dict())
    module.load_state_dict(weights)
    channels = definition.inputs[0].shape[1]
    image = torch.rand((2, channels, 16, 24), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = module(image)
    wanted = oracle.restored(weights, image, blocks=(1, 2, 1, 2), refinement=2, heads=(2, 1, 4, 3))
    residual = wanted if channels == 6 else wanted - image
    # What the network adds to the image is no rounding error of it.
    assert residual.abs().max() > 0.1
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-10 * wanted.abs().max()
