"""What the document gets wrong about Restormer and attention, each shown right here."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from exporter import define, registry
from exporter.define import seed_weights
from model_defs.restoration.blocks import MDTA, ChannelNorm, ConvGatedFFN, MultiHeadAttention, split_heads

from .specimens import SMALL


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@torch.no_grad()
def test_scores_between_positions_in_a_layout_that_gives_channels() -> None:
    """The document's step 2, ``Q K^T`` on (B, head, c, L), is said to be (L, L) and is (c, c)."""
    q = split_heads(drawn(1, 8, 2, 3), 2)
    assert (q @ q.transpose(-2, -1)).shape == (1, 2, 4, 4)
    v = torch.zeros(1, 2, 4, 6, dtype=torch.float64)
    v[..., 5] = 1.0
    weights = MultiHeadAttention()(q, q, v)
    assert weights.shape == (1, 2, 4, 6)
    # The value of one position reaches every position, the same share of it on every channel.
    assert (weights > 0).all() and torch.allclose(weights, weights[:, :, :1].expand_as(weights))


@torch.no_grad()
def test_temperature_divides_and_nothing_is_normalised() -> None:
    """The document's ``V softmax(K^T Q / alpha)``: the temperature multiplies, and q and k have unit length."""
    module = MDTA(4, heads=1).double()
    q, k = drawn(2, 1, 1, 4, 9).unbind(0)
    cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    module.temperature.fill_(3.0)
    torch.testing.assert_close(module.scores(q, k), (3.0 * cosines).softmax(-1))
    # Loud features do not sharpen the attention; a higher temperature does.
    torch.testing.assert_close(module.scores(100 * q, k), module.scores(q, k))
    mild = module.scores(q, k).max()
    module.temperature.fill_(30.0)
    assert module.scores(q, k).max() > mild


@torch.no_grad()
def test_values_weighted_from_the_wrong_side() -> None:
    """The document's ``V softmax(K^T Q)``: it is the scores times the values, and each row of the scores sums to one.

    With the sums along the other axis, values that are all alike would not come out as they went in.
    """
    module, x = MDTA(4, heads=1).double(), drawn(1, 4, 3, 3)
    seed_weights(module, 0)
    module.project_out.weight.copy_(torch.eye(4)[:, :, None, None])
    q, k, v = module.qkv_dwconv(module.qkv(x)).flatten(2).chunk(3, dim=1)
    scores = module.scores(q[:, None], k[:, None])[:, 0]
    torch.testing.assert_close(scores.sum(-1), torch.ones(1, 4, dtype=torch.float64))
    torch.testing.assert_close(module(x).flatten(2), scores @ v)
    # Queries and keys exchanged, which is the document's order, gives something else.
    assert not torch.allclose(module(x).flatten(2), scores.transpose(-2, -1) @ v)
    with pytest.raises(RuntimeError):
        v @ scores


def attention_macs(size: int = 16, channels: int = 16, heads: int = 2) -> int:
    """Multiply-accumulates of the two products of the attention, without those of its convolutions."""
    with torch.device("meta"):
        module, x = MDTA(channels, heads), torch.empty(1, channels, size, size)
    with FlopCounterMode(display=False) as counter:
        module(x)
    by_kind = counter.get_flop_counts()["Global"]
    return sum(count for kind, count in by_kind.items() if "convolution" not in str(kind)) // 2


def test_cost_said_to_be_independent_of_the_image() -> None:
    """The document's O(C^2) is O(H W C^2 / heads): linear in the pixels, never quadratic in them."""
    cost = attention_macs()
    # Scores and weighted sum: each one product of (C / heads, H W) with (H W, C / heads) per head.
    assert cost == 2 * 16**2 * 16**2 // 2
    assert attention_macs(size=32) == 4 * cost
    assert attention_macs(channels=32) == 4 * cost
    assert attention_macs(heads=4) == cost // 2


def test_biases_by_default() -> None:
    """The document's listing has ``bias=True``; no published checkpoint has a bias in a convolution."""
    for factory in (ConvGatedFFN, MDTA):
        assert inspect.signature(factory).parameters["bias"].default is False
    assert not any("bias" in name for name in ConvGatedFFN(4).state_dict())


def test_refinement_stage_missing() -> None:
    """The document ends with the decoder; four more blocks follow it, at twice the channels."""
    with torch.device("meta"):
        network = registry.model("restormer").build()
    assert len(network.refinement) == 4 and network.refinement[0].attn.qkv.in_channels == 96


def test_first_level_reduced_like_the_others() -> None:
    """The document calls the U-net symmetric; its first decoder level keeps the concatenated 96 channels."""
    with torch.device("meta"):
        network = registry.model("restormer").build()
    assert {name for name, _ in network.named_children() if name.startswith("reduce")} == {
        "reduce_chan_level3",
        "reduce_chan_level2",
    }
    assert network.decoder_level1[0].attn.qkv.in_channels == 96
    assert network.decoder_level1[0].attn.temperature.shape == (1, 1, 1)


@torch.no_grad()
def test_one_normalisation_for_all_tasks() -> None:
    """The document knows one LN; the denoisers' divides by the deviation and leaves the mean where it is."""
    norm, x = ChannelNorm(6, centred=False), drawn(1, 6, 4, 4) + 3.0
    seed_weights(norm, 0)
    norm.double()
    weight = norm.body.weight[:, None, None]
    torch.testing.assert_close(norm(x), x / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt() * weight)
    assert (norm(x).mean(1) / weight.mean()).abs().min() > 1
    rms = x / x.square().mean(1, keepdim=True).sqrt() * weight
    assert not torch.allclose(norm(x), rms, rtol=0.1)


@torch.no_grad()
def test_two_views_of_a_dual_pixel_sensor_missing() -> None:
    """The document's network takes three channels; the dual-pixel one takes six and gives three."""
    module = define.weighted(registry.model("restormer", {**SMALL, "variant": "dual-pixel"}), None, 0)[0]
    assert module(torch.rand(1, 6, 16, 16)).shape == (1, 3, 16, 16)


@torch.no_grad()
def test_sizes_that_are_no_multiples_of_eight() -> None:
    """The document says nothing of them, and 100 x 100 raises: the host pads and crops, and the dims forbid them."""
    definition = registry.model("restormer", SMALL)
    module = define.weighted(definition, None, 0)[0]
    with pytest.raises(RuntimeError):
        module(torch.rand(1, 3, 100, 100))
    assert [(dim.name, dim.unit) for dim in definition.dims] == [("H", 8), ("W", 8)]
    steps = {step.step: step.options for step in (*definition.before, *definition.after)}
    assert steps["pad"]["multiple"] == ["H.unit", "W.unit"] and steps["pad"]["of"] == [definition.inputs[0].name]
    assert steps["crop"]["of"] == [definition.outputs[0].name] and steps["crop"]["like"] == "image"


@torch.no_grad()
def test_gating_said_to_be_stable() -> None:
    """The document's product "prevents explosion"; two branches within float16 have a product beyond it."""
    ffn = ConvGatedFFN(1, 1.0)
    for tensor in ffn.parameters():
        tensor.fill_(1.0)
    ffn.dwconv.weight.zero_()
    ffn.dwconv.weight[:, :, 1, 1] = 1.0
    branch = ffn.dwconv(ffn.project_in(torch.full((1, 1, 3, 3), 300.0)))
    largest = torch.finfo(torch.float16).max
    assert branch.max() < largest < ffn(torch.full((1, 1, 3, 3), 300.0)).min()
