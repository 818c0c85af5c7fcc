"""The 3-D network that regularises a cost volume, steered by the features of the left image.

Source: Xu et al., "Iterative Geometry Encoding Volume for Stereo Matching", CVPR 2023; the excitation of a volume by
image features: Bangunharcana et al., "Correlate-and-Excite", IROS 2021. Written from the published descriptions and
the checkpoint's keys and shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import BatchNormed, convolution, doubling

# Channels of the volume at strides 4, 8, 16 and 32, and of the image features at the latter three.
VOLUME = (8, 16, 32, 48)
FEATURES = (64, 192, 160)


class FeatureAttention(nn.Module):
    """Scales every channel of a volume by a gate of the image feature at its pixel, the same for all disparities."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.feat_att = nn.Sequential(
            BatchNormed(convolution(features, features // 2, 1), features // 2), nn.Conv2d(features // 2, channels, 1)
        )

    def forward(self, volume: Tensor, features: Tensor) -> Tensor:
        """``volume (B, channels, D, h, w)``, ``features (B, features, h, w)`` to the shape of the volume."""
        gate: Tensor = torch.sigmoid(self.feat_att(features))
        return gate.unsqueeze(2) * volume


def _normed(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> BatchNormed:
    return BatchNormed(convolution(inputs, outputs, kernel, stride, rank=3), outputs, rank=3)


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_normed(inputs, outputs, stride=2), _normed(outputs, outputs))


def _raising(inputs: int, outputs: int) -> BatchNormed:
    return BatchNormed(doubling(inputs, outputs, rank=3), outputs, rank=3)


def _mixing(channels: int) -> nn.Sequential:
    return nn.Sequential(
        _normed(2 * channels, channels, kernel=1), _normed(channels, channels), _normed(channels, channels)
    )


class CostAggregation(nn.Module):
    """A 3-D hourglass over disparity, height and width: three halvings, three doublings, joined where sizes agree.

    All three sizes of the volume must be multiples of 8.
    """

    def __init__(self) -> None:
        super().__init__()
        c4, c8, c16, c32 = VOLUME
        f8, f16, f32 = FEATURES
        self.conv1, self.conv2, self.conv3 = _halving(c4, c8), _halving(c8, c16), _halving(c16, c32)
        self.conv3_up, self.conv2_up = _raising(c32, c16), _raising(c16, c8)
        self.conv1_up = _LastRaising(c8, c4)
        self.agg_0, self.agg_1 = _mixing(c16), _mixing(c8)
        self.feature_att_8 = FeatureAttention(c8, f8)
        self.feature_att_16 = FeatureAttention(c16, f16)
        self.feature_att_32 = FeatureAttention(c32, f32)
        self.feature_att_up_16 = FeatureAttention(c16, f16)
        self.feature_att_up_8 = FeatureAttention(c8, f8)

    def forward(self, volume: Tensor, features8: Tensor, features16: Tensor, features32: Tensor) -> Tensor:
        """``volume (B, 8, D, h, w)`` and the left image's features at half, quarter and eighth of its size."""
        x8 = self.feature_att_8(self.conv1(volume), features8)
        x16 = self.feature_att_16(self.conv2(x8), features16)
        x32 = self.feature_att_32(self.conv3(x16), features32)
        y16 = self.feature_att_up_16(self.agg_0(torch.cat([self.conv3_up(x32), x16], dim=1)), features16)
        y8 = self.feature_att_up_8(self.agg_1(torch.cat([self.conv2_up(y16), x8], dim=1)), features8)
        regularised: Tensor = self.conv1_up(y8)
        return regularised


class _LastRaising(nn.Module):
    """The last doubling, linear. Its checkpoint has a normalisation that is never used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = doubling(inputs, outputs, rank=3)
        self.bn = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        raised: Tensor = self.conv(x)
        return raised
