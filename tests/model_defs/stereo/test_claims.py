"""The document's figures about stereo that can be computed, each with the counter named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model_defs.stereo.gru import RaftConvGRU, SelectiveConvGRU, SelectiveConvGRUFused

from .specimens import drawn, meta, seeded


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def test_equations_1_to_4_of_the_recurrent_unit() -> None:
    """True of RAFT's and Selective-Stereo's unit: written out here in the document's order."""
    unit, h, x = seeded(RaftConvGRU(4, 6)), drawn(1, 4, 5, 6), drawn(1, 6, 5, 6, seed=1)
    hx = torch.cat([h, x], dim=1)
    z = 1 / (1 + torch.exp(-unit.convz(hx)))  # (1)
    r = 1 / (1 + torch.exp(-unit.convr(hx)))  # (2)
    candidate = torch.tanh(unit.convq(torch.cat([r * h, x], dim=1)))  # (3)
    torch.testing.assert_close(unit(h, x), (1 - z) * h + z * candidate)  # (4)


@torch.no_grad()
def test_the_selective_mixture() -> None:
    """``h = A small + (1 - A) large`` with ``A (B, 1, H, W)``: true."""
    unit, attention = seeded(SelectiveConvGRU(4, 6)), drawn(1, 1, 5, 6, low=0.0)
    h, x = drawn(1, 4, 5, 6), drawn(1, 6, 5, 6, seed=1)
    wanted = attention * unit.small_gru(h, x) + (1 - attention) * unit.large_gru(h, x)
    torch.testing.assert_close(unit(attention, h, x), wanted)


@pytest.mark.parametrize(("inputs", "published", "joined"), [(256, 1_475_328, 3_392_896), (384, 1_966_848, 5_654_144)])
def test_parameters_of_the_selective_units(inputs: int, published: int, joined: int) -> None:
    with torch.device("meta"):
        assert parameters(SelectiveConvGRU(128, inputs)) == published
        assert parameters(SelectiveConvGRUFused(128, inputs)) == joined


@pytest.mark.parametrize(("name", "count"), [("raft-stereo", 11_116_176), ("selective-raft", 11_654_706)])
def test_parameters_of_the_networks(name: str, count: int) -> None:
    assert parameters(meta(name)) == count


@pytest.mark.parametrize(
    ("name", "once", "each", "at_32"), [("raft-stereo", 76.4, 13.2, None), ("selective-raft", 73.5, 17.4, 631)]
)
def test_multiply_accumulates_at_256_by_320(name: str, once: float, each: float, at_32: float | None) -> None:
    """Of convolutions and matrix products: so many GMACs before the iterations, and so many in each of them.

    Counter: ``torch.utils.flop_counter.FlopCounterMode``, halved. The published code computes the upsampler's mask in
    every iteration and uses the last: its cost is added to an iteration's here.
    """
    totals = []
    for iterations in (1, 2):
        network = meta(name, iterations=iterations)
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network(*(torch.empty(1, 3, 256, 320) for _ in range(2)))
        totals.append(counter.get_total_flops() / 2e9)
    mask = parameters(network.update_block.mask) - 256 - 144  # weights, each used once per pixel
    update = totals[1] - totals[0] + mask * 64 * 80 / 1e9
    assert update == pytest.approx(each, abs=0.05) and totals[0] - update == pytest.approx(once, abs=0.05)
    if at_32 is not None:
        assert totals[0] + 31 * update == pytest.approx(at_32, abs=0.5)
