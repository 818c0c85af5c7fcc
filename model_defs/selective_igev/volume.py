"""What a pair of images is compared in: the group-wise volume, the correlation of whole lines, and the lookup in both.

Source: Guo et al., "Group-wise Correlation Stereo Network", CVPR 2019 (the volume); Xu et al., "Iterative Geometry
Encoding Volume for Stereo Matching", CVPR 2023 (the combined geometry encoding volume and its lookup). Written from
the published equations. Nothing here writes into a tensor: slice assignments become scatter nodes in a graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..stereo.declare import RADIUS
from .widths import GROUPS


def group_wise_correlation(left: Tensor, right: Tensor, disparities: int, groups: int = GROUPS) -> Tensor:
    """The likeness of each left pixel to the right pixel ``d`` columns before it, group of channels by group.

    Args:
        left: features ``(B, C, h, w)``.
        right: features of the same shape.
        disparities: how many ``d``, from 0.
        groups: a divisor of ``C``; the likeness is the mean of the products over a group's channels.

    Returns:
        ``(B, groups, disparities, h, w)``; 0 where column ``x - d`` lies before the image, so that a volume may be
        deeper than the image is wide.
    """
    # Columns before the image are zeros: the products there are the zeros of the volume.
    padded = functional.pad(right, (disparities - 1, 0)).unflatten(1, (groups, -1))
    left = left.unflatten(1, (groups, -1))
    ends = (-d if d else None for d in range(disparities))
    return torch.stack([(left * padded[..., disparities - 1 - d : end]).mean(2) for d, end in enumerate(ends)], dim=2)


def line_correlation(left: Tensor, right: Tensor) -> Tensor:
    """Every pixel of a left line with every pixel of the right line: ``(B, C, h, w)`` twice to ``(B, w', h, w)``.

    The products are summed, not averaged, over the channels; ``w'`` counts columns of the right image.
    """
    products = torch.matmul(right.permute(0, 2, 3, 1), left.permute(0, 2, 1, 3))
    return products.transpose(1, 2)


def halved(volume: Tensor) -> Tensor:
    """Neighbouring planes averaged: ``(B, ..., K, h, w)`` with an even ``K`` to ``(B, ..., K/2, h, w)``."""
    return (volume[..., 0::2, :, :] + volume[..., 1::2, :, :]) / 2


def taps(volume: Tensor, position: Tensor) -> Tensor:
    """The line of each pixel read at ``position - 4`` to ``position + 4``, interpolated linearly, 0 outside.

    It is what bilinear sampling with zeros outside gives, and needs no division by ``K - 1``, which is 0 for a line of
    one entry, and no sampling operator.

    Args:
        volume: ``(B, K, h, w)`` or ``(B, C, K, h, w)``; the line is along ``K``.
        position: ``(B, 1, h, w)``, in entries; any value.

    Returns:
        ``volume`` with 9 entries in the place of ``K``.
    """
    last, several = volume.shape[-3] - 1, volume.dim() == 5
    position = position.unsqueeze(1) if several else position
    base = torch.floor(position)
    # All nine positions have the same fraction, so that ten neighbours are enough.
    fraction = position - base
    steps = torch.arange(-RADIUS, RADIUS + 2, dtype=position.dtype, device=position.device)
    wanted = base + steps.view(-1, 1, 1)
    inside = (wanted >= 0) & (wanted <= last)
    index = wanted.clamp(0, last).to(torch.int64)
    index = index.expand(-1, volume.shape[1], -1, -1, -1) if several else index
    # Chosen, not multiplied: OpenVINO 2026.4 on arm64 makes whole numbers of what a comparison is multiplied with.
    found = torch.where(inside, volume.gather(volume.dim() - 3, index), 0.0)
    return found[..., :-1, :, :] * (1 - fraction) + found[..., 1:, :, :] * fraction


def geometry_lookup(geometry: tuple[Tensor, Tensor], correlation: tuple[Tensor, Tensor], disparity: Tensor) -> Tensor:
    """What the combined geometry encoding volume says around a disparity.

    Args:
        geometry: the regularised volume and its halved one: ``(B, 8, D, h, w)`` and ``(B, 8, D/2, h, w)``.
        correlation: the correlation of lines and its halved one: ``(B, w, h, w)`` and ``(B, w/2, h, w)``.
        disparity: ``(B, 1, h, w)``, pixels of this resolution.

    Returns:
        ``(B, 162, h, w)``: per level 8 groups x 9 disparities of the geometry, then 9 of the correlation.
    """
    width = disparity.shape[-1]
    column = torch.arange(width, dtype=disparity.dtype, device=disparity.device)
    found = []
    for level, (volume, lines) in enumerate(zip(geometry, correlation, strict=True)):
        scale = 0.5**level
        found.append(taps(volume, disparity * scale).flatten(1, 2))
        found.append(taps(lines, (column - disparity) * scale))
    return torch.cat(found, dim=1)


def mean_disparity(scores: Tensor) -> Tensor:
    """The mean disparity under the softmax of a volume: ``(B, 1, D, h, w)`` to ``(B, 1, h, w)``."""
    probability = scores.softmax(dim=2)
    disparities = torch.arange(scores.shape[2], dtype=scores.dtype, device=scores.device)
    return (probability * disparities.view(-1, 1, 1)).sum(dim=2)


class GroupWiseCorrelation(nn.Module):
    """The group-wise volume as a block: ``left, right (1, C, h, w)`` to ``volume (1, groups, D, h, w)``."""

    def __init__(self, disparities: int, groups: int) -> None:
        super().__init__()
        self.disparities, self.groups = disparities, groups

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return group_wise_correlation(left, right, self.disparities, self.groups)


class GeometryLookup(nn.Module):
    """The lookup as a block, pyramids included: see :func:`geometry_lookup`."""

    def forward(self, geometry: Tensor, correlation: Tensor, disparity: Tensor) -> Tensor:
        return geometry_lookup((geometry, halved(geometry)), (correlation, halved(correlation)), disparity)
