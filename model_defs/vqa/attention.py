"""Fusion by attention: one side's tokens ask, the other side's answer; or two vectors attend to one another.

Shapes are ``(B, N, D)`` for tokens, ``(B, D)`` for vectors and ``(B, heads, N, M)`` for weights, which are those the
softmax gives: before dropout, one set per head. Attention is written as two matrix products around a softmax, so that
the weights are at hand and every runtime knows the operators.

Source: the document's attention modules; Vaswani et al., NeurIPS 2017, arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, dropout: nn.Module) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention: ``(B, N, D)`` and ``(B, M, D)`` twice to ``(B, N, D)`` and the weights."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5
    weights = torch.softmax(query @ key.transpose(-2, -1) * scale, dim=-1)
    return (dropout(weights) @ value).transpose(1, 2).flatten(2), weights


def check_width(what: str, tensor: Tensor, rank: int, width: int) -> None:
    """A tensor of another rank or width would broadcast, and be wrong in silence.

    Raises:
        ValueError: with the shape.
    """
    if tensor.dim() != rank or tensor.shape[-1] != width:
        raise ValueError(f"{what} has shape {tuple(tensor.shape)}, not {rank} axes of which the last is {width} wide")


class MultiHeadAttention(nn.Module):
    """PyTorch's ``MultiheadAttention`` with its parameters by their names, and the weights of every head.

    Args:
        dim: width of the tokens.
        heads: a divisor of it.
        dropout: of the weights, in training.

    Raises:
        ValueError: when the heads do not divide the width.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        _refuse_uneven(dim, heads)
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``query (B, N, D)`` asks ``tokens (B, M, D)``: ``(B, N, D)`` and the weights."""
        linear = torch.nn.functional.linear
        projections = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        q, k, v = (linear(x, *projection) for x, projection in zip((query, tokens, tokens), projections, strict=True))
        attended, weights = attend(q, k, v, self.heads, self.dropout)
        return self.out_proj(attended), weights


class CrossModalAttention(nn.Module):
    """One side's tokens ask the other's; then a feed-forward network, each with a residual and a LayerNorm after.

    Over tokens: of a single key, softmax is 1 whatever the query, and query and key would learn nothing.

    Args:
        dim: width of the tokens.
        heads: a divisor of it.
        dropout: in training, of all but the weights.
        attention_dropout: in training, of the weights; as ``dropout`` where not given.

    Raises:
        ValueError: when the heads do not divide the width.
    """

    def __init__(
        self, dim: int = 512, heads: int = 8, dropout: float = 0.1, attention_dropout: float | None = None
    ) -> None:
        super().__init__()
        _refuse_uneven(dim, heads)
        self.dim, self.heads = dim, heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout if attention_dropout is None else attention_dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim), nn.Dropout(dropout)
        )

    def forward(self, query: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``query (B, N, D)`` and ``tokens (B, M, D)`` to ``(B, N, D)`` and the weights ``(B, heads, N, M)``.

        Raises:
            ValueError: for another rank or width.
        """
        check_width("query", query, 3, self.dim)
        check_width("tokens", tokens, 3, self.dim)
        q, k, v = self.q_proj(query), self.k_proj(tokens), self.v_proj(tokens)
        attended, weights = attend(q, k, v, self.heads, self.dropout)
        output = self.norm1(query + self.out_proj(attended))
        return self.norm2(output + self.ffn(output)), weights


class BiDirectionalCrossAttention(nn.Module):
    """Each side asks the other, and both answers are fused into one vector.

    The first token of a side is its summary: it asks, and all tokens of the other side answer.

    Args:
        dim: width of the tokens.
        heads: a divisor of it.
        dropout: in training, of all but the weights.
        attention_dropout: in training, of the weights; as ``dropout`` where not given.
    """

    def __init__(
        self, dim: int = 512, heads: int = 8, dropout: float = 0.1, attention_dropout: float | None = None
    ) -> None:
        super().__init__()
        self.attention_1_to_2 = CrossModalAttention(dim, heads, dropout, attention_dropout)
        self.attention_2_to_1 = CrossModalAttention(dim, heads, dropout, attention_dropout)
        self.fusion_layer = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim))

    def forward(self, tokens_1: Tensor, tokens_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, N, D)`` and ``(B, M, D)`` to ``fused (B, D)`` and ``weights (B, heads, 1, M)``, ``(B, heads, 1, N)``.

        Raises:
            ValueError: for another rank or width.
        """
        answer_1, weights_1 = self.attention_1_to_2(tokens_1[:, :1], tokens_2)
        answer_2, weights_2 = self.attention_2_to_1(tokens_2[:, :1], tokens_1)
        fused = self.fusion_layer(torch.cat([answer_1, answer_2], dim=-1).squeeze(1))
        return fused, weights_1, weights_2


class SelfAttentionFusion(nn.Module):
    """Two vectors as a sequence of two: self-attention with a residual, a LayerNorm, and a projection of both.

    Args:
        dim: width of the vectors.
        heads: a divisor of it.
        attention_dropout: in training, of the weights.
    """

    def __init__(self, dim: int = 512, heads: int = 8, attention_dropout: float = 0.1) -> None:
        super().__init__()
        self.dim = dim
        self.self_attention = MultiHeadAttention(dim, heads, attention_dropout)
        # Small beside features of a size near one: it says which is which, and must not drown them.
        self.pos_embedding = nn.Parameter(torch.randn(1, 2, dim) * 0.02)
        self.norm = nn.LayerNorm(dim)
        self.output_proj = nn.Linear(2 * dim, dim)

    def forward(self, features_1: Tensor, features_2: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, D)`` twice to ``fused (B, D)`` and the weights ``(B, heads, 2, 2)``.

        Raises:
            ValueError: for another rank or width.
        """
        check_width("features_1", features_1, 2, self.dim)
        check_width("features_2", features_2, 2, self.dim)
        pair = torch.stack([features_1, features_2], dim=1) + self.pos_embedding
        attended, weights = self.self_attention(pair, pair)
        return self.output_proj(self.norm(pair + attended).flatten(1)), weights


def _refuse_uneven(dim: int, heads: int) -> None:
    if heads < 1 or dim % heads:
        raise ValueError(f"{heads} heads do not divide a width of {dim}")
