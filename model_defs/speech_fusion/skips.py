"""The document's networks around its skips: dense skips, multi-scale preservation, and its decoder, repaired.

None of them is GTCRN's. Axes: B batch, C channels, T frames (16 ms apart), F frequency bands. Every convolution that
sees more than one frame sees earlier ones only, so that all of it is causal.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import BY_LEVEL
from .blends import strategy

BANDS = (129, 65, 33, 17)
"""Bands of an encoder's three features and of the bottleneck: kernel 5, stride 2 and padding 2 go from each to the
next, and transposed back exactly."""

FEATURES = (64, 128, 256)
"""Channels of the encoder's features, shallow to deep: the only ones with which the document's convolutions fit."""

ACROSS = {"kernel_size": (1, 5), "stride": (1, 2), "padding": (0, 2)}


def encoder_block(inputs: int, outputs: int) -> nn.Sequential:
    """Halves the bands: (B, inputs, T, F) to (B, outputs, T, (F + 1) / 2)."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, **ACROSS), nn.BatchNorm2d(outputs), nn.PReLU())


def decoder_block(inputs: int, outputs: int) -> nn.Sequential:
    """The block the document names and never defines; (B, inputs, T, F) to (B, outputs, T, 2 F - 1)."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, **ACROSS), nn.BatchNorm2d(outputs), nn.PReLU())


class DenseSkips(nn.Module):
    """Three encoder and three decoder layers; each decoder layer's output and the feature of its level are added.

    The document kept the features on the module between ``encode`` and ``decode``; here they are handed over.

    Args:
        channels: Channels of the input and of every feature.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        same = {"kernel_size": (1, 5), "padding": (0, 2)}
        self.encoder1 = nn.Sequential(nn.Conv2d(channels, channels, **same), nn.BatchNorm2d(channels), nn.PReLU())
        self.encoder2 = encoder_block(channels, channels)
        self.encoder3 = encoder_block(channels, channels)
        self.decoder3 = nn.Sequential(nn.Conv2d(channels, channels, **same), nn.BatchNorm2d(channels), nn.PReLU())
        self.decoder2 = decoder_block(channels, channels)
        self.decoder1 = decoder_block(channels, channels)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (B, C, T, 129) to the features (B, C, T, 129), (B, C, T, 65) and (B, C, T, 33)."""
        first = self.encoder1(x)
        second = self.encoder2(first)
        return first, second, self.encoder3(second)

    def decode(self, x: Tensor, features: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Maps (B, C, T, 33) and the features to (B, C, T, 129)."""
        first, second, third = features
        x = self.decoder3(x) + third
        x = self.decoder2(x) + second
        return self.decoder1(x) + first

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, 129) to (B, C, T, 129)."""
        features = self.encode(x)
        return self.decode(features[-1], features)


class CausalConv(nn.Module):
    """A 3 x 3 convolution with PReLU that sees ``2 * dilation`` earlier frames and no later one.

    Args:
        channels: Channels in and out.
        dilation: Frames between its taps.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.conv = nn.Conv2d(channels, channels, 3, padding=(0, 1), dilation=(dilation, 1))
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, F) to (B, C, T, F)."""
        return self.act(self.conv(F.pad(x, (0, 0, self.past, 0))))


class MultiscalePreservation(nn.Module):
    """``[input, micro, meso, macro]``: each scale is made of the one before it, and all are kept.

    The document's three extractors, defined: a 1 x 1 convolution sees its own frame; a 3 x 3 one three frames (48 ms);
    a 3 x 3 one with time dilation 5 on top of that 13 frames (208 ms), within the document's 100 to 500 ms.

    Args:
        channels: Channels of the input and of every scale.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.micro = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.PReLU())
        self.meso = CausalConv(channels, dilation=1)
        self.macro = CausalConv(channels, dilation=5)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, F) to (B, 4 C, T, F)."""
        micro = self.micro(x)
        meso = self.meso(micro)
        return torch.cat((x, micro, meso, self.macro(meso)), dim=1)


class FusionDecoder(nn.Module):
    """The document's decoder with consistent arithmetic, and any of its strategies at its three skips.

    256 channels at the bottleneck; each level halves the channels, doubles the bands and takes in the encoder's
    feature of its level. ``concat`` is the document's listing: a 1 x 1 convolution over both. It needs encoder features
    of 64, 128 and 256 channels, which the listing's comments contradict. Every other strategy fuses maps of the same
    channels, so a 1 x 1 convolution brings the encoder's there first. ``hybrid`` takes the strategy of the level;
    ``none`` takes in nothing.

    Args:
        fusion: ``concat``, ``add``, ``attention``, ``gated``, ``hybrid`` or ``none``.
    """

    def __init__(self, fusion: str) -> None:
        super().__init__()
        kinds = BY_LEVEL if fusion == "hybrid" else dict.fromkeys(BY_LEVEL, fusion)
        self.decoder3, self.decoder2, self.decoder1 = (decoder_block(2 * width, width) for width in (128, 64, 32))
        self.fusion1 = self._fusion(kinds["shallow"], FEATURES[0], 32)
        self.fusion2 = self._fusion(kinds["middle"], FEATURES[1], 64)
        self.fusion3 = self._fusion(kinds["deep"], FEATURES[2], 128)

    @staticmethod
    def _fusion(kind: str, encoder: int, decoder: int) -> nn.Module | None:
        return None if kind == "none" else Fusion(kind, encoder, decoder)

    def forward(self, bottleneck: Tensor, *features: Tensor) -> Tensor:
        """Decodes.

        Args:
            bottleneck: (B, 256, T, 17).
            *features: The encoder's, shallow to deep: (B, 64, T, 129), (B, 128, T, 65), (B, 256, T, 33). Not looked at
                where the strategy is ``none``, and may be left out there.

        Returns:
            (B, 32, T, 129).
        """
        x = bottleneck
        levels = ((self.decoder3, self.fusion3), (self.decoder2, self.fusion2), (self.decoder1, self.fusion1))
        for depth, (decode, fuse) in enumerate(levels, start=1):
            x = decode(x)
            x = x if fuse is None else fuse(features[-depth], x)
        return x


class Fusion(nn.Module):
    """One skip of :class:`FusionDecoder`: a strategy and the 1 x 1 convolution that makes its channels fit.

    Args:
        kind: The strategy.
        encoder: Channels of the encoder's feature.
        decoder: Channels of the decoder's, and of the result.
    """

    def __init__(self, kind: str, encoder: int, decoder: int) -> None:
        super().__init__()
        joined = kind == "concat"
        self.fuse = strategy(kind, decoder)
        self.before = None if joined else nn.Conv2d(encoder, decoder, 1)
        self.after = nn.Conv2d(encoder + decoder, decoder, 1) if joined else None

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Maps (B, encoder, T, F) and (B, decoder, T, F) to (B, decoder, T, F)."""
        fused = self.fuse(encoder if self.before is None else self.before(encoder), decoder)
        return fused if self.after is None else self.after(fused)
