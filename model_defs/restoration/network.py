"""Restormer: a four-level U-net of transformer blocks whose attention is between channels.

Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022
(https://arxiv.org/abs/2111.09881). Written from the published equations and the checkpoints' keys and shapes: the
authors' code is under a licence for non-commercial use, and none of it is here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .blocks import TransformerBlock


@dataclass(frozen=True)
class Shape:
    """What tells one published Restormer from another.

    Attributes:
        inputs: Channels of the input image: 3, 1 for gray, 6 for the two views of a dual-pixel sensor.
        outputs: Channels of the restored image.
        dim: Channels of the first level; they double with each.
        blocks: Transformer blocks of the four levels; the decoder repeats the first three.
        refinement: Transformer blocks after the decoder.
        heads: Heads of the four levels.
        expansion: Hidden channels per channel of the feed-forward networks.
        bias: Whether convolutions have biases; no published checkpoint's have.
        centred: Whether normalisations subtract the mean (``WithBias``) or not (``BiasFree``).
        two_views: Whether the embedding, and not the image, is added at the end (dual-pixel).
    """

    inputs: int = 3
    outputs: int = 3
    dim: int = 48
    blocks: tuple[int, ...] = (4, 6, 6, 8)
    refinement: int = 4
    heads: tuple[int, ...] = (1, 2, 4, 8)
    expansion: float = 2.66
    bias: bool = False
    centred: bool = True
    two_views: bool = False


class PatchEmbed(nn.Module):
    """A 3 x 3 convolution of the image, without bias in every variant.

    Args:
        inputs: Channels of the image.
        dim: Channels of the embedding.
    """

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, dim, H, W)."""
        return self.proj(x)


class Downsample(nn.Module):
    """Half the size, twice the channels: 3 x 3 convolution to half the channels, then pixel unshuffle by 2.

    Args:
        dim: Channels in.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W), H and W even, to (B, 2 C, H / 2, W / 2)."""
        return self.body(x)


class Upsample(nn.Module):
    """Twice the size, half the channels: 3 x 3 convolution to twice the channels, then pixel shuffle by 2.

    Args:
        dim: Channels in.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C / 2, 2 H, 2 W)."""
        return self.body(x)


class Restormer(nn.Module):
    """The network; its tensors have the names and shapes of the published checkpoints.

    The decoder's first level has no convolution that halves the concatenated channels: it and the refinement run at
    ``2 * dim`` channels with the first level's heads.

    Args:
        shape: Which Restormer.
    """

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or Shape()
        dim, (n1, n2, n3, n4), (h1, h2, h3, h4) = shape.dim, shape.blocks, shape.heads
        self.patch_embed = PatchEmbed(shape.inputs, dim)
        self.encoder_level1 = self._level(dim, h1, n1)
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = self._level(2 * dim, h2, n2)
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = self._level(4 * dim, h3, n3)
        self.down3_4 = Downsample(4 * dim)
        self.latent = self._level(8 * dim, h4, n4)
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=shape.bias)
        self.decoder_level3 = self._level(4 * dim, h3, n3)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=shape.bias)
        self.decoder_level2 = self._level(2 * dim, h2, n2)
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = self._level(2 * dim, h1, n1)
        self.refinement = self._level(2 * dim, h1, shape.refinement)
        if shape.two_views:
            self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=shape.bias)
        self.output = nn.Conv2d(2 * dim, shape.outputs, 3, padding=1, bias=shape.bias)

    def _level(self, dim: int, heads: int, blocks: int) -> nn.Sequential:
        shape = self.shape
        return nn.Sequential(
            *(TransformerBlock(dim, heads, shape.expansion, shape.bias, shape.centred) for _ in range(blocks))
        )

    def forward(self, image: Tensor) -> Tensor:
        """Restores an image.

        Args:
            image: Degraded image, (B, inputs, H, W), 0 to 1; H and W are multiples of 8.

        Returns:
            The restored image, (B, outputs, H, W), not clamped.

        Raises:
            RuntimeError: H or W is no multiple of 8.
        """
        embedded = self.patch_embed(image)
        level1 = self.encoder_level1(embedded)
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        x = self.up4_3(self.latent(self.down3_4(level3)))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat((x, level3), dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat((self.up3_2(x), level2), dim=1)))
        x = self.refinement(self.decoder_level1(torch.cat((self.up2_1(x), level1), dim=1)))
        if self.shape.two_views:
            return self.output(x + self.skip_conv(embedded))
        return self.output(x) + image
