"""Fusion of several levels of a network: vectors one after another, or maps from the coarsest down.

Source: the document's hierarchical and pyramid fusion; Lin et al., "Feature Pyramid Networks for Object Detection",
CVPR 2017, arxiv.org/abs/1612.03144.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fusion import two_layers


class HierarchicalFeatureFusion(nn.Module):
    """Vectors of several levels, from the lowest up: each is joined with what the levels below gave.

    Args:
        widths: of the levels' vectors, lowest level first.
        dim: width of the result.
        dropout: in training.
    """

    def __init__(self, widths: Sequence[int] = (512, 1024, 2048), dim: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        self.alignment_layers = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.fusion_layers = nn.ModuleList(two_layers(2 * dim, dim, dim, dropout) for _ in widths[1:])
        self.final_layer = two_layers(dim, dim, dim, dropout)

    def forward(self, *levels: Tensor) -> Tensor:
        """One ``(B, widths[i])`` per level to ``fused (B, dim)``.

        Raises:
            ValueError: for another number of levels.
        """
        refuse_other_count(levels, self.alignment_layers)
        fused, *higher = (align(level) for align, level in zip(self.alignment_layers, levels, strict=True))
        for fuse, level in zip(self.fusion_layers, higher, strict=True):
            fused = fuse(torch.cat([fused, level], dim=1))
        return self.final_layer(fused)


class PyramidFeatureFusion(nn.Module):
    """Maps of several levels: each gets what the coarser ones saw, enlarged; their means are fused into a vector.

    Args:
        widths: channels of the levels' maps, finest level first.
        dim: channels of the pyramid, and width of the result.
        dropout: in training.
    """

    def __init__(self, widths: Sequence[int] = (256, 512, 1024, 2048), dim: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in widths)
        self.final_fusion = two_layers(dim * len(widths), 2 * dim, dim, dropout)

    def forward(self, *maps: Tensor) -> Tensor:
        """One ``(B, widths[i], h, w)`` per level, sizes falling, to ``fused (B, dim)``.

        Raises:
            ValueError: for another number of levels.
        """
        refuse_other_count(maps, self.lateral_convs)
        laterals = [align(level) for align, level in zip(self.lateral_convs, maps, strict=True)]
        merged = [laterals[-1]]
        for lateral in laterals[-2::-1]:
            above = F.interpolate(merged[0], size=lateral.shape[-2:], mode="bilinear", align_corners=False)
            merged.insert(0, lateral + above)
        smooth = [conv(level) for conv, level in zip(self.fpn_convs, merged, strict=True)]
        return self.final_fusion(torch.cat([level.mean(dim=(2, 3)) for level in smooth], dim=1))


def refuse_other_count(levels: Sequence[Tensor], layers: nn.ModuleList) -> None:
    """A level too few would leave layers unused, one too many would be ignored."""
    if len(levels) != len(layers):
        raise ValueError(f"{len(levels)} levels, and {len(layers)} are fused")
