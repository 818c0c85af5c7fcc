"""Contextual attention: what the weights are made of, and that they are weights."""

from __future__ import annotations

import pytest
import torch

from model_defs.stereo.attention import ChannelAttention, ContextualAttention, SpatialAttention

from .specimens import drawn, seeded


@torch.no_grad()
def test_channels_are_weighted_by_one_perceptron_of_their_mean_and_their_largest() -> None:
    module, x = seeded(ChannelAttention(32)), drawn(2, 32, 3, 4)
    first, second = module.fc[0].weight[:, :, 0, 0], module.fc[2].weight[:, :, 0, 0]
    assert first.shape == (2, 32) and module.fc[0].bias is None and module.fc[2].bias is None
    flat = x.flatten(2)
    scores = sum((v @ first.T).relu() @ second.T for v in (flat.mean(2), flat.amax(2)))
    torch.testing.assert_close(module(x)[:, :, 0, 0], torch.sigmoid(scores))


@torch.no_grad()
def test_pixels_are_weighted_by_the_mean_and_the_largest_over_the_channels() -> None:
    module, x = seeded(SpatialAttention()), drawn(1, 8, 9, 9)
    found = module(x)
    assert found.shape == (1, 1, 9, 9) and module.samconv.bias is None
    kernel, score = module.samconv.weight[0], 0.0
    for channel, plane in enumerate((x.mean(1)[0], x.amax(1)[0])):
        score += (plane[1:8, 1:8] * kernel[channel]).sum()
    torch.testing.assert_close(found[0, 0, 4, 4], torch.sigmoid(score))


@torch.no_grad()
def test_the_map_is_of_the_weighted_context() -> None:
    module, x = seeded(ContextualAttention(32)), drawn(1, 32, 6, 7, low=0.0)
    weighted, attention = module(x)
    assert torch.equal(weighted, module.cam(x) * x) and torch.equal(attention, module.sam(weighted))
    assert not torch.equal(attention, module.sam(x))
    for weights in (module.cam(x), attention):
        assert weights.min() > 0 and weights.max() < 1


@pytest.mark.parametrize("ratio", [0, 33])
def test_a_ratio_that_leaves_no_channel_is_refused(ratio: int) -> None:
    with pytest.raises(ValueError, match=f"ratio {ratio} leaves no channel of 32"):
        ChannelAttention(32, ratio)
