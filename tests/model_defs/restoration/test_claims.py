"""The document's figures that can be computed, each with the counter named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from exporter import registry


def meta(**options: Any) -> nn.Module:
    with torch.device("meta"):
        return registry.model("restormer", options).build()


@pytest.mark.parametrize(("variant", "parameters"), [("color", 26_126_644), ("denoise", 26_111_668)])
def test_parameters_of_restormer(variant: str, parameters: int) -> None:
    assert sum(p.numel() for p in meta(variant=variant).parameters()) == parameters


def test_macs_of_restormer_at_256() -> None:
    """The paper's 140.99 G is multiply-accumulates of convolutions alone; with the two attention products 154.88 G.

    Counter: ``torch.utils.flop_counter.FlopCounterMode``, halved.
    """
    network, image = meta(), torch.empty(1, 3, 256, 256, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(image)
    by_kind = counter.get_flop_counts()["Global"]
    convolutions = sum(count for kind, count in by_kind.items() if "convolution" in str(kind)) / 2
    assert convolutions / 1e9 == pytest.approx(140.99, abs=0.005)
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(154.88, abs=0.005)


@pytest.mark.parametrize(("dim", "hidden"), [(48, 127), (96, 255), (192, 510), (384, 1021)])
def test_hidden_width_of_the_gated_network(dim: int, hidden: int) -> None:
    with torch.device("meta"):
        ffn = registry.model("conv-gated-ffn", {"dim": dim}).build()
    assert ffn.project_out.in_channels == hidden and ffn.project_in.out_channels == 2 * hidden


def test_unshuffled_pixels_lose_nothing() -> None:
    """``(1, 8, 8, 8)`` with factor 4 is ``(1, 128, 2, 2)``, and the pixel shuffle undoes it bit by bit."""
    down = registry.model("pixel-unshuffle", {"factor": 4, "channels": 8}).build()
    up = registry.model("pixel-shuffle", {"factor": 4, "channels": 8}).build()
    x = torch.rand(1, 8, 8, 8)
    assert down(x).shape == (1, 128, 2, 2)
    assert torch.equal(up(down(x)), x)
    assert torch.equal(down(x)[:, 4 * 4 + 4 + 2], x[:, 1, 1::4, 2::4])


def test_scores_of_transposed_attention_are_between_channels() -> None:
    with torch.device("meta"):
        module = registry.model("mdta", {"dim": 48, "heads": 2}).build()
        q = torch.empty(1, 2, 24, 32 * 32)
    assert module.scores(q, q).shape == (1, 2, 24, 24)
