"""Contextual spatial attention: which channels of the context count, and where detail counts more than surroundings.

Source: Wang et al., "Selective-Stereo: Adaptive Frequency Information Selection for Stereo Matching", CVPR 2024,
https://arxiv.org/abs/2403.00486. Written from the published equations and the checkpoint's keys and shapes. It reads
context alone, and so is computed once per image, before the first iteration.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .declare import HIDDEN


class ChannelAttention(nn.Module):
    """A weight for each channel: ``sigmoid(M mean(x) + M max(x))`` with one two-layer perceptron ``M`` for both.

    Args:
        channels: channels of the features.
        ratio: how many times narrower the hidden layer is. The published code takes such an argument, ignores it and
            always divides by 16; here it counts, and 16 is the default.

    Raises:
        ValueError: when the hidden layer would have no channel.
    """

    def __init__(self, channels: int = HIDDEN, ratio: int = 16) -> None:
        super().__init__()
        if not 1 <= ratio <= channels:
            raise ValueError(f"ratio {ratio} leaves no channel of {channels}")
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // ratio, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // ratio, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, C, H, W)`` to weights ``(B, C, 1, 1)`` in 0..1."""
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.sigmoid(self.fc(mean) + self.fc(largest))


class SpatialAttention(nn.Module):
    """A weight for each pixel: ``sigmoid(Conv7x7 [mean, max])`` of the mean and the largest over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.samconv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, C, H, W)`` to weights ``(B, 1, H, W)`` in 0..1."""
        found = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.samconv(found))


class ContextualAttention(nn.Module):
    """Both in a row: the context with its channels weighted, and the attention map of that.

    Args:
        channels: channels of the context.
        ratio: how many times narrower the hidden layer of the channel attention is.

    Raises:
        ValueError: when that layer would have no channel.
    """

    def __init__(self, channels: int = HIDDEN, ratio: int = 16) -> None:
        super().__init__()
        self.cam, self.sam = ChannelAttention(channels, ratio), SpatialAttention()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, C, H, W)`` to the weighted context ``(B, C, H, W)`` and the attention map ``(B, 1, H, W)``."""
        weighted = self.cam(x) * x
        return weighted, self.sam(weighted)
