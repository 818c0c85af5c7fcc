"""The blocks of Restormer, and the document's multi-head attention and pixel rearrangements.

Source: Zamir, Arora, Khan, Hayat, Khan, Yang, "Restormer: Efficient Transformer for High-Resolution Image
Restoration", CVPR 2022 (https://arxiv.org/abs/2111.09881). Written from the published equations and the checkpoints'
keys and shapes: the authors' code is under a licence for non-commercial use, and none of it is here.

Axes: B batch, C channels, H and W pixels. All values are dimensionless features.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvGatedFFN(nn.Module):
    """Gated depthwise feed-forward network (GDFN): ``project_out(gelu(a) * b)`` with ``a, b`` from one convolution.

    Its hidden width is ``int(dim * expansion)``. Of the document's listing this differs in the default of ``bias``:
    every published checkpoint is without.

    Args:
        dim: Channels in and out.
        expansion: Hidden channels per channel.
        bias: Whether the three convolutions have biases.
    """

    def __init__(self, dim: int, expansion: float = 2.66, bias: bool = False) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W); the residual connection is the caller's."""
        activated, gate = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(activated) * gate)


class MDTA(nn.Module):
    """Multi-Dconv-head transposed attention: attention between channels, at a cost linear in the pixels.

    Per head ``softmax(temperature * q k^T) v`` with ``q`` and ``k`` of unit length along the pixels, so that the
    scores are (C / heads, C / heads) cosines, whatever the size of the image.

    Args:
        dim: Channels in and out.
        heads: Heads; they divide the channels.
        bias: Whether the three convolutions have biases.
    """

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Attention weights (B, heads, c, c) of queries and keys (B, heads, c, H W), rows summing to one."""
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W); the residual connection is the caller's."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1))
        return self.project_out(merge_heads(self.scores(q, k) @ v, x))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Maps (B, heads * c, H, W) to (B, heads, c, H W): the same values in the same order."""
    return x.unflatten(1, (heads, -1)).flatten(3)


def merge_heads(x: Tensor, like: Tensor) -> Tensor:
    """Maps (B, heads, c, H W) back to (B, heads * c, H, W), with the height and width of ``like``."""
    return x.flatten(1, 2).unflatten(2, like.shape[2:])


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention between positions, on the document's layout (B, heads, c, L).

    ``softmax(q^T k / sqrt(c) + mask)`` over the keys, applied to ``v``. In this layout it is ``q^T k`` that compares
    positions, (L, L); the document's ``q k^T`` would be (c, c), which is :class:`MDTA`'s attention. Time and memory
    grow with the square of L.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends from every position to all positions.

        Args:
            q: Queries, (B, heads, c, L).
            k: Keys, (B, heads, c, L).
            v: Values, (B, heads, c, L).
            mask: Added to the scores, (B or 1, heads or 1, L queries, L keys): 0 where a query may look, a large
                negative number where not. A row that is minus infinity throughout gives NaN.

        Returns:
            Weighted values, (B, heads, c, L).
        """
        scores = q.transpose(-2, -1) @ k / math.sqrt(q.shape[-2])
        if mask is not None:
            scores = scores + mask
        return v @ scores.softmax(dim=-1).transpose(-2, -1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of every pixel; its weights lie under ``body``, as in the checkpoints.

    Args:
        dim: Channels.
        centred: Whether the mean is subtracted and a bias added (``WithBias``). If not (``BiasFree``), the values are
            divided by their standard deviation, which is that around the mean nevertheless: no RMS norm.
    """

    def __init__(self, dim: int, centred: bool) -> None:
        super().__init__()
        self.body = Affine(dim, centred)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Affine(nn.Module):
    """The normalisation of :class:`ChannelNorm` on the last axis, with its scale and bias.

    Args:
        dim: Channels.
        centred: As in :class:`ChannelNorm`.
    """

    eps = 1e-5

    def __init__(self, dim: int, centred: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if centred else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to (..., C)."""
        if self.bias is not None:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return x * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + self.eps) * self.weight


class TransformerBlock(nn.Module):
    """``x + MDTA(norm1(x))``, then ``x + GDFN(norm2(x))``.

    Args:
        dim: Channels in and out.
        heads: Heads of the attention.
        expansion: Hidden channels per channel of the feed-forward network.
        bias: Whether convolutions have biases.
        centred: As in :class:`ChannelNorm`.
    """

    def __init__(self, dim: int, heads: int, expansion: float, bias: bool, centred: bool) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim, centred)
        self.attn = MDTA(dim, heads, bias)
        self.norm2 = ChannelNorm(dim, centred)
        self.ffn = ConvGatedFFN(dim, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))
