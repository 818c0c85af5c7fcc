"""Layers that many parts of Selective-IGEV are made of, under the names that its checkpoints give them.

Source: Xu et al., "Iterative Geometry Encoding Volume for Stereo Matching", CVPR 2023 (IGEV-Stereo), and Wang et al.,
"Selective-Stereo", CVPR 2024. Written from the published descriptions and the checkpoint's keys and shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVOLUTIONS: dict[tuple[int, bool], type[nn.Module]] = {
    (2, False): nn.Conv2d,
    (2, True): nn.ConvTranspose2d,
    (3, False): nn.Conv3d,
    (3, True): nn.ConvTranspose3d,
}
BATCH_NORMS: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, rank: int = 2) -> nn.Module:
    """A convolution without bias that keeps the size, or divides it by its stride."""
    return CONVOLUTIONS[rank, False](inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


def doubling(inputs: int, outputs: int, rank: int = 2) -> nn.Module:
    """A transposed convolution without bias that doubles every size: kernel 4, stride 2, padding 1."""
    return CONVOLUTIONS[rank, True](inputs, outputs, 4, stride=2, padding=1, bias=False)


class BatchNormed(nn.Module):
    """Convolution, batch normalisation, leaky ReLU of slope 0.01: keys ``conv`` and ``bn``."""

    def __init__(self, conv: nn.Module, channels: int, rank: int = 2) -> None:
        super().__init__()
        self.conv = conv
        self.bn = BATCH_NORMS[rank](channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.bn(self.conv(x)))


class InstanceNormed(nn.Module):
    """Convolution, instance normalisation without weights, leaky ReLU of slope 0.01: key ``conv`` alone."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.norm(self.conv(x)))


class Joined(nn.Module):
    """Doubles a map, joins the finer one to it, and mixes the two: keys ``conv1`` and ``conv2``.

    Args:
        norm: what is behind each convolution.
        inputs: channels of the coarser map.
        channels: channels of the finer map; the result has twice as many.
    """

    def __init__(self, norm: type[BatchNormed] | type[InstanceNormed], inputs: int, channels: int) -> None:
        super().__init__()
        self.conv1 = norm(doubling(inputs, channels), channels)
        self.conv2 = norm(convolution(2 * channels, 2 * channels, 3), 2 * channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """``coarse (B, inputs, h, w)``, ``fine (B, channels, 2h, 2w)`` to ``(B, 2 * channels, 2h, 2w)``."""
        joined: Tensor = self.conv2(torch.cat([self.conv1(coarse), fine], dim=1))
        return joined


def stem(inputs: int, channels: int, stride: int) -> nn.Sequential:
    """Two convolutions with instance normalisation: a strided one with leaky ReLU, one with ReLU."""
    return nn.Sequential(
        InstanceNormed(convolution(inputs, channels, 3, stride), channels),
        convolution(channels, channels, 3),
        nn.InstanceNorm2d(channels),
        nn.ReLU(),
    )
