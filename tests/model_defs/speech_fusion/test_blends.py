"""The strategies by their formulas, written out here in another way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from exporter import registry
from exporter.define import seed_weights
from model_defs.speech_fusion import STRATEGIES
from model_defs.speech_fusion.blends import Aligned, Attention, Gated, interpolation, strategy
from model_defs.speech_fusion.skips import FusionDecoder


def seeded(module: nn.Module) -> nn.Module:
    seed_weights(module, 0)
    return module.double().eval()


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 2, 4, 3, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind(0)


def test_concatenation_and_addition(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    encoder, decoder = pair
    both = strategy("concat", 4)(encoder, decoder)
    assert torch.equal(both[:, :4], encoder) and torch.equal(both[:, 4:], decoder)
    assert torch.equal(strategy("add", 4)(encoder, decoder), encoder + decoder)


@torch.no_grad()
@pytest.mark.parametrize(("made", "maps"), [(Attention, 1), (Gated, 4)])
def test_a_blend_is_between_both_and_weighted_by_both(
    made: type[nn.Module], maps: int, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    module, (encoder, decoder) = seeded(made(4)), pair
    (weight, bias) = module.parameters()
    assert weight.shape == (maps, 8, 1, 1)
    both = torch.cat((encoder, decoder), 1).permute(0, 2, 3, 1)
    gate = 1 / (1 + torch.exp(-(both @ weight[:, :, 0, 0].T + bias)))
    wanted = gate * encoder.permute(0, 2, 3, 1) + (1 - gate) * decoder.permute(0, 2, 3, 1)
    torch.testing.assert_close(module(encoder, decoder), wanted.permute(0, 3, 1, 2))
    for value, kept in ((40.0, encoder), (-40.0, decoder)):
        weight.zero_(), bias.fill_(value)
        torch.testing.assert_close(module(encoder, decoder), kept)


@pytest.mark.parametrize(("bands", "wanted"), [(65, 33), (129, 33), (17, 33), (33, 33), (1, 33)])
def test_alignment_is_linear_interpolation_of_bands(bands: int, wanted: int) -> None:
    row = torch.randn(2, 3, bands, dtype=torch.float64)
    resized = F.interpolate(row, size=wanted, mode="linear", align_corners=False)
    torch.testing.assert_close(row @ interpolation(bands, wanted).double(), resized, rtol=1e-5, atol=1e-6)


def test_alignment_is_frozen_arithmetic() -> None:
    assert not any(p.requires_grad for p in Aligned(65, 33).parameters())


@torch.no_grad()
def test_every_strategy_of_the_decoder_gives_another_answer() -> None:
    generator, outputs = torch.Generator().manual_seed(0), list[torch.Tensor]()
    given: dict[str, torch.Tensor] = {}
    for name in STRATEGIES:
        definition = registry.model("fusion-decoder", {"strategy": name})
        module = definition.build().eval()
        seed_weights(module, 0)
        for tensor in definition.inputs:
            given.setdefault(tensor.name, torch.randn(tensor.sized({"T": 63}), generator=generator))
        output = module(*(given[tensor.name] for tensor in definition.inputs))
        assert output.shape == (1, 32, 63, 129), name
        outputs.append(output)
    assert all(not torch.allclose(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


def test_the_hybrid_takes_the_strategy_of_its_level() -> None:
    hybrid = FusionDecoder("hybrid")
    kinds = [type(part.fuse).__name__ for part in (hybrid.fusion1, hybrid.fusion2, hybrid.fusion3)]
    assert kinds == ["Concat", "Attention", "Add"]
    for level, kind in zip(("shallow", "middle", "deep"), kinds, strict=True):
        assert type(registry.model("fusion-hybrid", {"level": level}).build()).__name__ == kind
