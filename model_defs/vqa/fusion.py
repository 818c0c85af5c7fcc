"""Fusion of vectors by learned weights: gates, experts, a shared context, or each side's own quality.

Every module takes vectors ``(B, D)`` and gives the fused vector ``(B, D)`` first, then the weights it used.

Source: the document's gated, adaptive, dynamic and quality-aware fusion; the noise of the adaptive gate is that of
Shazeer et al., ICLR 2017, arxiv.org/abs/1701.06538.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import check_width


def two_layers(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout, linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))


class GatedFusion(nn.Module):
    """A small network weighs both sides against one another.

    Args:
        dim: width of the vectors.
        hidden: width of the gate's hidden layer.
        dropout: in training.
    """

    def __init__(self, dim: int = 512, hidden: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.dim = dim
        self.gate_network = nn.Sequential(
            *two_layers(2 * dim, hidden, hidden // 2, dropout),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden // 2, 2),
            nn.Softmax(dim=1),
        )
        self.transform_1 = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout))
        self.transform_2 = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout))
        self.output_layer = two_layers(dim, dim, dim, dropout)

    def forward(self, features_1: Tensor, features_2: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, D)`` twice to ``fused (B, D)`` and ``gates (B, 2)``, which sum to 1."""
        both = joined(self.dim, features_1, features_2)
        gates = self.gate_network(both)
        weighed = self.transform_1(features_1) * gates[:, 0:1] + self.transform_2(features_2) * gates[:, 1:2]
        return self.output_layer(weighed), gates


class AdaptiveGatedFusion(nn.Module):
    """Several networks each fuse both sides; a gate mixes their answers.

    In training the gate's logits get normal noise whose size is learned and positive, so that experts are tried; one
    softmax follows. In evaluation there is no noise: two runs agree, and a graph holds no random operator.

    Args:
        dim: width of the vectors.
        experts: how many networks.
        dropout: in training.
    """

    def __init__(self, dim: int = 512, experts: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.dim = dim
        self.experts = nn.ModuleList(two_layers(2 * dim, dim, dim, dropout) for _ in range(experts))
        self.gating_network = two_layers(2 * dim, dim, experts, dropout)
        self.noise_gate = nn.Linear(2 * dim, experts)

    def forward(self, features_1: Tensor, features_2: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, D)`` twice to ``fused (B, D)`` and ``gates (B, experts)``, which sum to 1."""
        both = joined(self.dim, features_1, features_2)
        logits = self.gating_network(both)
        if self.training:
            logits = logits + F.softplus(self.noise_gate(both)) * torch.randn_like(logits)
        gates = torch.softmax(logits, dim=1)
        answers = torch.stack([expert(both) for expert in self.experts], dim=1)
        return (answers * gates.unsqueeze(-1)).sum(dim=1), gates


class DynamicWeightNetwork(nn.Module):
    """A context of all sides gives the weight of each.

    Args:
        dim: width of the vectors.
        context: width of the context.
        sides: how many vectors are fused.
        dropout: in training.
    """

    def __init__(self, dim: int = 512, context: int = 128, sides: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.dim, self.sides = dim, sides
        self.context_encoder = nn.Sequential(
            *two_layers(dim * sides, 2 * context, context, dropout), nn.ReLU(), nn.Dropout(dropout)
        )
        self.weight_generator = nn.Sequential(*two_layers(context, context // 2, sides, dropout), nn.Softmax(dim=1))
        self.feature_transformers = nn.ModuleList(two_layers(dim, dim, dim, dropout) for _ in range(sides))
        self.post_fusion = two_layers(dim, dim, dim, dropout)

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        """As many ``(B, D)`` as there are sides to ``fused (B, D)`` and ``weights (B, sides)``, which sum to 1.

        Raises:
            ValueError: for another number of vectors, or another width.
        """
        if len(features) != self.sides:
            raise ValueError(f"{len(features)} vectors, and {self.sides} are fused")
        weights = self.weight_generator(self.context_encoder(joined(self.dim, *features)))
        transformed = [change(x) for change, x in zip(self.feature_transformers, features, strict=True)]
        fused = (torch.stack(transformed, dim=1) * weights.unsqueeze(-1)).sum(dim=1)
        return self.post_fusion(fused), weights


class QualityAwareFusion(nn.Module):
    """Each side says how good and how uncertain it is, and is weighed by its reliability ``quality (1 - uncertainty)``.

    The weights are the softmax of the logarithms of the reliabilities, which is their share of the sum: it needs no
    small number against a division by zero, and holds in half precision.

    Args:
        dim: width of the vectors.
        hidden: width of the assessors.
        dropout: in training.
    """

    def __init__(self, dim: int = 512, hidden: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.dim = dim
        self.quality_assessor = nn.Sequential(
            *two_layers(dim, 2 * hidden, hidden, dropout), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )
        self.uncertainty_estimator = two_layers(dim, hidden, 1, dropout)
        self.feature_enhancer = two_layers(dim, dim, dim, dropout)
        self.fusion_network = two_layers(2 * dim, dim, dim, dropout)

    def forward(self, features_1: Tensor, features_2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(B, D)`` twice to ``fused (B, D)`` and ``(B, 2)`` each: qualities, uncertainties, weights."""
        joined(self.dim, features_1, features_2)
        sides = torch.stack([features_1, features_2], dim=1)
        quality, uncertainty = self.quality_assessor(sides).squeeze(-1), self.uncertainty_estimator(sides).squeeze(-1)
        # log sigmoid(q) + log (1 - sigmoid(u)), in the form that neither overflows nor takes the logarithm of 0.
        reliability = -F.softplus(-quality) - F.softplus(uncertainty)
        weights = torch.softmax(reliability, dim=1)
        fused = self.fusion_network((self.feature_enhancer(sides) * weights.unsqueeze(-1)).flatten(1))
        return fused, torch.sigmoid(quality), torch.sigmoid(uncertainty), weights


def joined(dim: int, *features: Tensor) -> Tensor:
    """The vectors side by side.

    Raises:
        ValueError: for another rank or width.
    """
    for index, tensor in enumerate(features, start=1):
        check_width(f"features_{index}", tensor, 2, dim)
    return torch.cat(features, dim=1)
