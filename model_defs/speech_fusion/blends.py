"""The document's ways to fuse an encoder's feature map with a decoder's. None but the addition is GTCRN's.

Written from the document's formulas and listings, repaired. Axes: B batch, C channels, T frames (16 ms apart), F
frequency bands. All values are dimensionless features. No strategy looks at another frame than its own, so all of them
are causal.
"""

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """``[encoder, decoder]`` along the channels: nothing is lost, and whatever follows is twice as wide."""

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Maps (B, C, T, F) and (B, D, T, F) to (B, C + D, T, F)."""
        return torch.cat((encoder, decoder), dim=1)


class Add(nn.Module):
    """``encoder + decoder``: the only one that GTCRN uses, at all five of its skips."""

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Maps twice (B, C, T, F) to (B, C, T, F)."""
        return encoder + decoder


class Attention(nn.Module):
    """``a * encoder + (1 - a) * decoder`` with one weight ``a = sigmoid(W [encoder, decoder])`` per frame and band.

    The document's function used a convolution that it never defined; here it gives one map, shared by all channels,
    which is what tells it from :class:`Gated`.

    Args:
        channels: Channels of either feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention_conv = nn.Conv2d(2 * channels, 1, 1)

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Maps twice (B, C, T, F) to (B, C, T, F)."""
        weight = torch.sigmoid(self.attention_conv(torch.cat((encoder, decoder), dim=1)))
        return weight * encoder + (1 - weight) * decoder


class Gated(nn.Module):
    """Gated selection: as :class:`Attention`, with a gate of its own for every channel.

    Args:
        channels: Channels of either feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate_conv = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Maps twice (B, C, T, F) to (B, C, T, F)."""
        gate = torch.sigmoid(self.gate_conv(torch.cat((encoder, decoder), dim=1)))
        return gate * encoder + (1 - gate) * decoder


class Aligned(nn.Module):
    """Feature alignment: the encoder's bands are interpolated to the decoder's, then both are added.

    The document resized time as well, which mixes frames with later ones. Here the time axis is never touched: both
    maps have the same frames. Linear interpolation between band centres, as ``torch.nn.functional.interpolate`` with
    ``align_corners=False``, is a fixed matrix along F.

    GTCRN has no need of it: widths 129, 65 and 33 invert exactly through kernel 5, stride 2 and padding 2.

    Args:
        bands: Bands of the encoder's map.
        wanted: Bands of the decoder's map.
    """

    def __init__(self, bands: int, wanted: int) -> None:
        super().__init__()
        # Frozen, and no buffer: it is arithmetic, not a statistic.
        self.resample = nn.Parameter(interpolation(bands, wanted), requires_grad=False)

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Maps (B, C, T, bands) and (B, C, T, wanted) to (B, C, T, wanted)."""
        return encoder @ self.resample + decoder


def interpolation(bands: int, wanted: int) -> Tensor:
    """The matrix (bands, wanted) that interpolates a row of ``bands`` values linearly at ``wanted`` centres."""
    centres = ((torch.arange(wanted, dtype=torch.float64) + 0.5) * bands / wanted - 0.5).clamp(0, bands - 1)
    distance = (torch.arange(bands, dtype=torch.float64)[:, None] - centres).abs()
    return (1 - distance).clamp_min(0).to(torch.get_default_dtype())


def strategy(name: str, channels: int) -> nn.Module:
    """The strategy of that name for feature maps of ``channels`` channels each.

    Raises:
        KeyError: no strategy is called so.
    """
    made = {"concat": Concat, "add": Add, "attention": lambda: Attention(channels), "gated": lambda: Gated(channels)}
    return made[name]()
