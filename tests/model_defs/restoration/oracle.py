"""Restormer as one plain function of a state dict, by its published equations and the checkpoints' keys.

Nothing here comes from ``model_defs``: tensors are looked up by their keys, so a skip that is joined in another order,
a level left out or two levels exchanged change the answer. Written as sums where the network has modules.

Axes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def restored(weights: Weights, image: Tensor, blocks: Sequence[int], refinement: int, heads: Sequence[int]) -> Tensor:
    """The network's answer.

    Args:
        weights: the whole state dict. With ``skip_conv.weight`` in it, the image has two views.
        image: (B, C, H, W); H and W multiples of 8.
        blocks: transformer blocks of the four levels, shallow to deep.
        refinement: transformer blocks after the decoder.
        heads: attention heads of the four levels.

    Returns:
        The restored image, (B, outputs, H, W).
    """
    embedded = convolved(weights, "patch_embed.proj", image)

    first = level(weights, "encoder_level1", embedded, blocks[0], heads[0])
    second = level(weights, "encoder_level2", halved(weights, "down1_2", first), blocks[1], heads[1])
    third = level(weights, "encoder_level3", halved(weights, "down2_3", second), blocks[2], heads[2])
    x = level(weights, "latent", halved(weights, "down3_4", third), blocks[3], heads[3])

    x = torch.cat([doubled(weights, "up4_3", x), third], dim=1)
    x = level(weights, "decoder_level3", convolved(weights, "reduce_chan_level3", x), blocks[2], heads[2])
    x = torch.cat([doubled(weights, "up3_2", x), second], dim=1)
    x = level(weights, "decoder_level2", convolved(weights, "reduce_chan_level2", x), blocks[1], heads[1])
    x = torch.cat([doubled(weights, "up2_1", x), first], dim=1)
    x = level(weights, "decoder_level1", x, blocks[0], heads[0])
    x = level(weights, "refinement", x, refinement, heads[0])

    if "skip_conv.weight" in weights:
        return convolved(weights, "output", x + convolved(weights, "skip_conv", embedded))
    return convolved(weights, "output", x) + image


def level(weights: Weights, name: str, x: Tensor, blocks: int, heads: int) -> Tensor:
    """``blocks`` transformer blocks, (B, C, H, W) to the same shape; there are no more in the weights."""
    assert f"{name}.{blocks}.attn.temperature" not in weights
    for index in range(blocks):
        at = f"{name}.{index}"
        x = x + attention(weights, f"{at}.attn", normalised(weights, f"{at}.norm1.body", x), heads)
        x = x + feed_forward(weights, f"{at}.ffn", normalised(weights, f"{at}.norm2.body", x))
    return x


def attention(weights: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    """MDTA by its sums: each channel's answer is a weighted sum of the channels of its head."""
    batch, channels, height, width = x.shape
    features = depthwise(weights, f"{name}.qkv_dwconv", convolved(weights, f"{name}.qkv", x))
    queries, keys, values = (features[:, n * channels : (n + 1) * channels].flatten(2) for n in range(3))
    per_head = channels // heads
    answers = []
    for head in range(heads):
        own = slice(head * per_head, (head + 1) * per_head)
        q, k, v = queries[:, own], keys[:, own], values[:, own]
        q = q / q.square().sum(-1, keepdim=True).sqrt()
        k = k / k.square().sum(-1, keepdim=True).sqrt()
        scores = torch.exp(torch.einsum("bip,bjp->bij", q, k) * weights[f"{name}.temperature"][head, 0, 0])
        shares = scores / scores.sum(-1, keepdim=True)
        answers.append(torch.einsum("bij,bjp->bip", shares, v))
    joined = torch.cat(answers, dim=1).reshape(batch, channels, height, width)
    return convolved(weights, f"{name}.project_out", joined)


def feed_forward(weights: Weights, name: str, x: Tensor) -> Tensor:
    """GDFN: the first half of the channels through GELU, times the second half."""
    wide = depthwise(weights, f"{name}.dwconv", convolved(weights, f"{name}.project_in", x))
    hidden = wide.shape[1] // 2
    first, second = wide[:, :hidden], wide[:, hidden:]
    activated = first * (1 + torch.erf(first / math.sqrt(2))) / 2
    return convolved(weights, f"{name}.project_out", activated * second)


def normalised(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Over the channels of a pixel: with a bias, layer normalisation; without, the mean stays where it is."""
    mean = x.sum(1, keepdim=True) / x.shape[1]
    deviation = ((x - mean).square().sum(1, keepdim=True) / x.shape[1] + 1e-5).sqrt()
    scale = weights[f"{name}.weight"][None, :, None, None]
    if f"{name}.bias" in weights:
        return (x - mean) / deviation * scale + weights[f"{name}.bias"][None, :, None, None]
    return x / deviation * scale


def convolved(weights: Weights, name: str, x: Tensor) -> Tensor:
    """A convolution that keeps height and width; its bias where the weights have one."""
    kernel = weights[f"{name}.weight"]
    return F.conv2d(x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)


def depthwise(weights: Weights, name: str, x: Tensor) -> Tensor:
    """A 3 x 3 convolution of every channel on its own."""
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=1, groups=x.shape[1])


def halved(weights: Weights, name: str, x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 2 C, H / 2, W / 2): a convolution to half the channels, then 2 x 2 pixels to channels."""
    x = convolved(weights, f"{name}.body.0", x)
    corners = [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.stack(corners, dim=2).flatten(1, 2)


def doubled(weights: Weights, name: str, x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C / 2, 2 H, 2 W): a convolution to twice the channels, then four channels to 2 x 2 pixels."""
    x = convolved(weights, f"{name}.body.0", x)
    batch, channels, height, width = x.shape
    larger = x.new_zeros(batch, channels // 4, 2 * height, 2 * width)
    for row in (0, 1):
        for column in (0, 1):
            larger[:, :, row::2, column::2] = x[:, 2 * row + column :: 4]
    return larger
