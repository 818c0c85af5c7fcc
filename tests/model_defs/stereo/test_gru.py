"""The recurrent units: their gates at the limits, and which of them are special cases of which."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model_defs.stereo.gru import (
    ContextConvGRU,
    RaftConvGRU,
    RaftConvGRUHX,
    SelectiveConvGRU,
    SelectiveConvGRUFused,
)

from .specimens import drawn, seeded

OPEN, SHUT = 1e3, -1e3


def given() -> tuple[Tensor, Tensor]:
    return drawn(1, 4, 5, 6), drawn(1, 6, 5, 6, seed=1)


def biased(unit: nn.Module, **biases: float) -> nn.Module:
    for gate, value in biases.items():
        getattr(unit, gate).bias.data.fill_(value)
    return unit


@torch.no_grad()
def test_a_shut_update_gate_keeps_the_state_and_an_open_one_forgets_it() -> None:
    h, x = given()
    unit = seeded(RaftConvGRU(4, 6))
    assert torch.equal(biased(unit, convz=SHUT)(h, x), h)
    biased(unit, convz=OPEN, convr=SHUT)
    candidate = torch.tanh(unit.convq(torch.cat([torch.zeros_like(h), x], dim=1)))
    torch.testing.assert_close(unit(h, x), candidate)
    torch.testing.assert_close(unit(h, x), unit(-h, x))


@torch.no_grad()
def test_a_shut_reset_gate_hides_the_state_from_the_candidate_alone() -> None:
    h, x = given()
    unit = biased(seeded(RaftConvGRU(4, 6)), convr=SHUT)
    z = torch.sigmoid(unit.convz(torch.cat([h, x], dim=1)))
    q = torch.tanh(unit.convq(torch.cat([torch.zeros_like(h), x], dim=1)))
    torch.testing.assert_close(unit(h, x), (1 - z) * h + z * q)


@torch.no_grad()
def test_the_hx_form_of_state_and_input_is_the_plain_form() -> None:
    h, x = given()
    plain, other = seeded(RaftConvGRU(4, 6)), seeded(RaftConvGRUHX(4, 6))
    other.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(other(h, x, torch.cat([h, x], dim=1)), plain(h, x))
    assert not torch.equal(other(h, x, torch.cat([x, h], dim=1)), plain(h, x))


@torch.no_grad()
def test_a_context_is_a_bias_that_differs_from_pixel_to_pixel() -> None:
    h, x = given()
    plain, other = seeded(RaftConvGRU(4, 6)), seeded(ContextConvGRU(4, 6))
    context = [drawn(1, 4, 5, 6, seed=seed) for seed in (2, 3, 4)]
    zero = [torch.zeros_like(c) for c in context]
    assert torch.equal(other(h, *zero, x), plain(h, x))
    for at, gate in enumerate(("convz", "convr", "convq")):
        constant = drawn(1, 4, 1, 1, seed=5)
        only = [constant.expand_as(h) if index == at else c for index, c in enumerate(zero)]
        moved = seeded(RaftConvGRU(4, 6))
        getattr(moved, gate).bias.data += constant.flatten()
        torch.testing.assert_close(other(h, *only, x), moved(h, x))


@torch.no_grad()
@pytest.mark.parametrize("kind", [SelectiveConvGRU, SelectiveConvGRUFused])
def test_attention_selects_between_the_kernels(kind: type[nn.Module]) -> None:
    h, x = given()
    unit = seeded(kind(4, 6))
    small, large = [], []
    unit.small_gru.register_forward_hook(lambda *call: small.append(call[-1]))
    unit.large_gru.register_forward_hook(lambda *call: large.append(call[-1]))
    one = torch.ones(1, 1, 5, 6, dtype=h.dtype)
    assert torch.equal(unit(one, h, x), small[-1]) and torch.equal(unit(0 * one, h, x), large[-1])
    assert not torch.equal(small[-1], large[-1])
    torch.testing.assert_close(unit(0.25 * one, h, x), 0.25 * small[-1] + 0.75 * large[-1])


def test_kernels_of_other_sizes_keep_the_size() -> None:
    h, x = given()
    assert seeded(SelectiveConvGRU(4, 6, small=3, large=5))(drawn(1, 1, 5, 6), h, x).shape == h.shape
