"""The features of one image: MobileNetV2 at strides 4 to 32, and a decoder that brings the coarse ones up to stride 4.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, with the key names of
timm's ``mobilenetv2_100``, in whose form the checkpoints are published; the decoder from Xu et al., "Iterative
Geometry Encoding Volume for Stereo Matching", CVPR 2023. Written from the published descriptions and the checkpoint's
keys and shapes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .layers import InstanceNormed, Joined, convolution

# Stages of the trunk: (channels, stride, blocks), expansion 6; the first stage has one block and no expansion.
STAGES = ((24, 2, 2), (32, 2, 3), (64, 2, 4), (96, 1, 3), (160, 2, 3))
EXPANSION = 6


def depthwise(channels: int, stride: int) -> nn.Conv2d:
    """A 3x3 convolution of every channel on its own, without bias."""
    return nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)


class DepthwiseSeparable(nn.Module):
    """The first block: depthwise with ReLU6, then pointwise without an activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = depthwise(inputs, 1), nn.BatchNorm2d(inputs)
        self.conv_pw, self.bn2 = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.bn2(self.conv_pw(functional.relu6(self.bn1(self.conv_dw(x)))))
        return projected


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; only the first two with ReLU6; with the input added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = EXPANSION * inputs
        self.conv_pw, self.bn1 = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.conv_dw, self.bn2 = depthwise(hidden, stride), nn.BatchNorm2d(hidden)
        self.conv_pwl, self.bn3 = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.bn1(self.conv_pw(x)))
        y = functional.relu6(self.bn2(self.conv_dw(y)))
        projected: Tensor = self.bn3(self.conv_pwl(y))
        return x + projected if self.residual else projected


def trunk_stages() -> list[nn.Sequential]:
    """The six stages of MobileNetV2 up to stride 32: what timm calls ``blocks.0`` to ``blocks.5``."""
    stages, inputs = [nn.Sequential(DepthwiseSeparable(32, 16))], 16
    for channels, stride, blocks in STAGES:
        first = InvertedResidual(inputs, channels, stride)
        stages.append(nn.Sequential(first, *(InvertedResidual(channels, channels, 1) for _ in range(blocks - 1))))
        inputs = channels
    return stages


class Features(nn.Module):
    """``x (B, 3, H, W)`` to maps at strides 4, 8, 16 and 32 of 48, 64, 192 and 160 channels."""

    def __init__(self) -> None:
        super().__init__()
        stages = trunk_stages()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.block0 = nn.Sequential(stages[0])
        self.block1 = nn.Sequential(stages[1])
        self.block2 = nn.Sequential(stages[2])
        self.block3 = nn.Sequential(stages[3], stages[4])
        self.block4 = nn.Sequential(stages[5])
        self.deconv32_16 = Joined(InstanceNormed, 160, 96)
        self.deconv16_8 = Joined(InstanceNormed, 192, 32)
        self.deconv8_4 = Joined(InstanceNormed, 64, 24)
        self.conv4 = InstanceNormed(convolution(48, 48, 3), 48)

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """MobileNetV2 alone: 24, 32, 96 and 160 channels at strides 4, 8, 16 and 32."""
        x4 = self.block1(self.block0(functional.relu6(self.bn1(self.conv_stem(x)))))
        x8 = self.block2(x4)
        x16 = self.block3(x8)
        return x4, x8, x16, self.block4(x16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x4, x8, x16, x32 = self.trunk(x)
        y16 = self.deconv32_16(x32, x16)
        y8 = self.deconv16_8(y16, x8)
        return self.conv4(self.deconv8_4(y8, x4)), y8, y16, x32
