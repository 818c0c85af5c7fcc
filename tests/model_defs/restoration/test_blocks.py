"""The blocks by their equations, written out here in another way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from exporter.define import seed_weights
from model_defs.restoration.blocks import (
    MDTA,
    ChannelNorm,
    ConvGatedFFN,
    MultiHeadAttention,
    TransformerBlock,
    merge_heads,
    split_heads,
)


def seeded(module: torch.nn.Module) -> torch.nn.Module:
    seed_weights(module, 0)
    return module.double().eval()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@torch.no_grad()
def test_mdta_head_by_head() -> None:
    module, x = seeded(MDTA(8, heads=2, bias=True)), drawn(2, 8, 5, 3)
    features = module.qkv_dwconv(module.qkv(x)).reshape(2, 3, 2, 4, 15)
    outputs = []
    for head in range(2):
        q, k, v = features[:, 0, head], features[:, 1, head], features[:, 2, head]
        cosines = torch.stack(
            [torch.stack([F.cosine_similarity(q[:, i], k[:, j], dim=-1) for j in range(4)], -1) for i in range(4)], 1
        )
        outputs.append((cosines * module.temperature[head]).softmax(-1) @ v)
    wanted = module.project_out(torch.cat(outputs, 1).reshape(2, 8, 5, 3))
    torch.testing.assert_close(module(x), wanted)


@torch.no_grad()
def test_gdfn_by_its_formula() -> None:
    module, x = seeded(ConvGatedFFN(6, 2.66, bias=True)), drawn(1, 6, 4, 7)
    wide = module.dwconv(module.project_in(x))
    hidden = int(6 * 2.66)
    erf_gelu = 0.5 * wide[:, :hidden] * (1 + torch.erf(wide[:, :hidden] / math.sqrt(2)))
    torch.testing.assert_close(module(x), module.project_out(erf_gelu * wide[:, hidden:]))


@torch.no_grad()
@pytest.mark.parametrize("centred", [True, False])
def test_a_block_has_two_residual_branches(centred: bool) -> None:
    """With both last projections at zero nothing is left but the input."""
    block, x = seeded(TransformerBlock(8, 2, 2.66, False, centred)), drawn(1, 8, 4, 4)
    assert not torch.allclose(block(x), x)
    block.attn.project_out.weight.zero_()
    assert not torch.allclose(block(x), x)
    block.ffn.project_out.weight.zero_()
    assert torch.equal(block(x), x)


@torch.no_grad()
def test_the_norm_with_bias_is_layer_norm_over_channels() -> None:
    norm, x = seeded(ChannelNorm(6, centred=True)), drawn(2, 6, 3, 5)
    pixel = F.layer_norm(x[1, :, 2, 4], (6,), norm.body.weight, norm.body.bias, 1e-5)
    torch.testing.assert_close(norm(x)[1, :, 2, 4], pixel)


@torch.no_grad()
def test_heads_are_split_without_moving_a_value() -> None:
    """The document's section 7: ``(1, 8, 2, 2)`` to ``(1, 2, 4, 4)``."""
    q = torch.arange(32).reshape(1, 8, 2, 2)
    split = split_heads(q, 2)
    assert split.shape == (1, 2, 4, 4) and split[0, 0, 0].tolist() == [0, 1, 2, 3]
    assert torch.equal(split.flatten(), q.flatten())
    assert torch.equal(merge_heads(split, q), q)


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_attention_between_positions_is_scaled_dot_product_attention(masked: bool) -> None:
    q, k, v = drawn(3, 2, 4, 8, 10).unbind(0)
    mask = torch.full((10, 10), -1e4, dtype=torch.float64).triu(1).reshape(1, 1, 10, 10) if masked else None
    wanted = F.scaled_dot_product_attention(*(t.transpose(-2, -1) for t in (q, k, v)), attn_mask=mask)
    torch.testing.assert_close(MultiHeadAttention()(q, k, v, mask), wanted.transpose(-2, -1))


@torch.no_grad()
def test_a_masked_position_has_no_say() -> None:
    q, k, v = drawn(3, 1, 1, 4, 6).unbind(0)
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    mask[..., 2] = -1e4
    before = MultiHeadAttention()(q, k, v, mask)
    v[..., 2] += 100
    assert torch.equal(MultiHeadAttention()(q, k, v, mask), before)
    assert not torch.allclose(MultiHeadAttention()(q, k, v), before)
