"""How like each pixel of a left line is to each pixel of the right one, and what that says around a disparity.

Source: Lipson et al., "RAFT-Stereo: Multilevel Recurrent Field Transforms for Stereo Matching", 3DV 2021,
https://arxiv.org/abs/2109.07547. Written from the published equations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .declare import PYRAMID_LEVELS, RADIUS

# Of each level, from the leftmost to the rightmost.
TAPS = 2 * RADIUS + 1


def correlation_pyramid(left: Tensor, right: Tensor, levels: int = PYRAMID_LEVELS) -> list[Tensor]:
    """The products of all pairs of pixels of a line over ``sqrt(C)``, and their averages over 2, 4 and 8 right ones.

    Args:
        left: features ``(B, C, h, w)``.
        right: features of the same shape.
        levels: how many.

    Returns:
        ``(B, h, w, w)``, ``(B, h, w, w // 2)`` and so on; the last axis is the column in the right image.
    """
    products = torch.einsum("bchi,bchj->bhij", left, right) / left.shape[1] ** 0.5
    pyramid = [products]
    for _ in range(levels - 1):
        pyramid.append(functional.avg_pool2d(pyramid[-1], (1, 2)))
    return pyramid


def columns(like: Tensor) -> Tensor:
    """The column of every pixel of a map, ``(w,)``."""
    return torch.arange(like.shape[-1], dtype=like.dtype, device=like.device)


class GridLookup(nn.Module):
    """The pyramid read around a position by bilinear sampling, as published.

    The sampler divides by the width less one, so that a level of width 1, that of an image 32 pixels wide, gives NaN.
    """

    def forward(self, pyramid: Sequence[Tensor], position: Tensor) -> Tensor:
        """Reads nine taps per level, a pixel of that level apart.

        Args:
            pyramid: of :func:`correlation_pyramid`.
            position: columns in the right image, ``(B, 1, h, w)``; any value: outside the image the likeness is 0.

        Returns:
            ``(B, 36, h, w)``.
        """
        batch, _, height, width = position.shape
        taps = torch.arange(-RADIUS, RADIUS + 1, dtype=position.dtype, device=position.device)
        found = []
        for level, likeness in enumerate(pyramid):
            x = position.reshape(-1, 1, 1) / 2**level + taps
            x = 2 * x / (likeness.shape[-1] - 1) - 1
            grid = torch.stack([x, torch.zeros_like(x)], dim=-1)
            lines = likeness.reshape(-1, 1, 1, likeness.shape[-1])
            read = functional.grid_sample(lines, grid, align_corners=True)
            found.append(read.reshape(batch, height, width, TAPS))
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


class GatherLookup(nn.Module):
    """The same without a sampler: ten neighbours of each position, then nine straight lines between them.

    It needs no division by the width less one, which costs the sampler digits and, at width 1, all of them.
    """

    def forward(self, pyramid: Sequence[Tensor], position: Tensor) -> Tensor:
        """As :meth:`GridLookup.forward`."""
        found = [self._level(likeness, position / 2**level) for level, likeness in enumerate(pyramid)]
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2)

    @staticmethod
    def _level(likeness: Tensor, position: Tensor) -> Tensor:
        # All nine positions have the same fraction, so that ten neighbours are enough.
        position = position.permute(0, 2, 3, 1)
        base = position.floor()
        fraction = position - base
        reach = torch.arange(-RADIUS, RADIUS + 2, dtype=position.dtype, device=position.device)
        wanted, last = base + reach, likeness.shape[-1] - 1
        index = wanted.clamp(0, last)
        # Chosen, not multiplied: OpenVINO 2026.4 on arm64 makes whole numbers of what a comparison is multiplied with.
        found = torch.where(index == wanted, likeness.gather(-1, index.to(torch.int64)), 0.0)
        return found[..., :-1] * (1 - fraction) + found[..., 1:] * fraction


LOOKUPS = {"grid": GridLookup, "gather": GatherLookup}


class CorrelationLookup(nn.Module):
    """Pyramid and lookup as a block.

    Args:
        sampler: ``grid`` or ``gather``.
    """

    def __init__(self, sampler: str = "grid") -> None:
        super().__init__()
        self.lookup = LOOKUPS[sampler]()

    def forward(self, left: Tensor, right: Tensor, disparity: Tensor) -> Tensor:
        """Features ``(B, C, h, w)`` twice and the flow to the right image ``(B, 1, h, w)`` to ``(B, 36, h, w)``."""
        looked_up: Tensor = self.lookup(correlation_pyramid(left, right), columns(disparity) + disparity)
        return looked_up
