"""Full resolution from a coarse map: each pixel is a learned mixture of the nine coarse values around it.

Source: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020,
https://arxiv.org/abs/2003.12039. Written from the published equations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .declare import NEIGHBOURS


def neighbours(x: Tensor) -> Tensor:
    """The 3x3 around each pixel, row by row, zeros beyond the border: ``(B, 1, h, w)`` to ``(B, 9, h, w)``."""
    padded = functional.pad(x, (1, 1, 1, 1))
    ends = (-2, -1, None)
    shifted = [padded[..., row : ends[row], column : ends[column]] for row in range(3) for column in range(3)]
    return torch.cat(shifted, dim=1)


class ConvexUpsample(nn.Module):
    """``factor`` times the size; the mixture is convex: a softmax over the neighbours, zeros beyond the border.

    Values are pixels, and so are multiplied by the factor.

    Args:
        factor: how many times larger.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, flow: Tensor, mask: Tensor) -> Tensor:
        """Maps a flow to full size.

        Args:
            flow: ``(B, 1, h, w)``, in pixels of its own size.
            mask: ``(B, 9 * factor^2, h, w)``: scores, neighbour by neighbour, then rows and columns of fine pixels.

        Returns:
            ``(B, 1, factor * h, factor * w)``, in pixels of that size.
        """
        batch, _, height, width = flow.shape
        weights = mask.view(batch, NEIGHBOURS, self.factor, self.factor, height, width).softmax(dim=1)
        around = functional.unfold(self.factor * flow, 3, padding=1)
        mixed = (weights * around.view(batch, NEIGHBOURS, 1, 1, height, width)).sum(dim=1)
        return mixed.permute(0, 3, 1, 4, 2).reshape(batch, 1, self.factor * height, self.factor * width)


class ShiftedUpsample(ConvexUpsample):
    """The same with nine shifted slices in the place of the unfolding, in at most five axes."""

    def forward(self, flow: Tensor, mask: Tensor) -> Tensor:
        """As :meth:`ConvexUpsample.forward`."""
        weights = mask.unflatten(1, (NEIGHBOURS, self.factor**2)).softmax(dim=1)
        mixed = (weights * neighbours(self.factor * flow).unsqueeze(2)).sum(dim=1)
        return functional.pixel_shuffle(mixed, self.factor)
