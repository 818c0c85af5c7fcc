"""RAFT-Stereo as trained: 11,116,176 parameters, 337 keys; its real-time form 9,865,568 and 309.

Source: Lipson et al., "RAFT-Stereo: Multilevel Recurrent Field Transforms for Stereo Matching", 3DV 2021,
https://arxiv.org/abs/2109.07547; https://github.com/princeton-vl/RAFT-Stereo (MIT). Written from the published
equations and the checkpoint's keys and shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .correlation import GridLookup, columns, correlation_pyramid
from .declare import HIDDEN
from .encoder import FEATURES, ContextNetwork, FeatureNetwork, ResidualBlock
from .update import MASK_SCALE, RaftStereoUpdate
from .upsample import ConvexUpsample

LAYERS = (1, 2, 3)


@dataclass(frozen=True)
class Shape:
    """What tells the published variants apart.

    Attributes:
        layers: levels of recurrent units, 1 to 3.
        downsample: the finest level has stride ``2 ** downsample``.
        shared: whether the features come from the context network's trunk.
        slow_fast: whether the coarser units run more often than the finest.

    Raises:
        ValueError: for another number of levels.
    """

    layers: int = 3
    downsample: int = 2
    shared: bool = False
    slow_fast: bool = False

    def __post_init__(self) -> None:
        if self.layers not in LAYERS:
            raise ValueError(f"{self.layers} levels: there are 1, 2 or 3")

    @property
    def factor(self) -> int:
        """Stride of the finest level."""
        return 2**self.downsample


VARIANTS = {"base": Shape(), "realtime": Shape(layers=2, downsample=3, shared=True, slow_fast=True)}


def scaled(image: Tensor) -> Tensor:
    """``0..255`` to ``-1..1``."""
    return 2 * (image / 255) - 1


class RaftStereo(nn.Module):
    """``left``, ``right (B, 3, H, W)`` in 0..255 to the flow from left to right, which is the negative disparity.

    Args:
        shape: which variant.
        iterations: how often the flow is updated.
    """

    def __init__(self, shape: Shape, iterations: int) -> None:
        super().__init__()
        self.shape, self.iterations = shape, iterations
        self.cnet = ContextNetwork(shape.downsample)
        self.update_block = RaftStereoUpdate(shape.layers, shape.factor)
        self.context_zqr_convs = nn.ModuleList(nn.Conv2d(HIDDEN, 3 * HIDDEN, 3, padding=1) for _ in range(shape.layers))
        if shape.shared:
            self.conv2 = nn.Sequential(ResidualBlock(128, 128, "instance"), nn.Conv2d(128, FEATURES, 3, padding=1))
        else:
            self.fnet = FeatureNetwork(shape.downsample)
        self.lookup: nn.Module = GridLookup()
        self.upsampler: nn.Module = ConvexUpsample(shape.factor)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The last flow.

        Returns:
            ``flow_low (B, 2, h, w)``, pixels of that size, its second channel 0; ``flow_up (B, 1, H, W)``, pixels.
        """
        pyramid, hidden, context = self.encode(scaled(left), scaled(right))
        x = torch.zeros_like(hidden[0][:, :1])
        for _ in range(self.iterations):
            hidden, x = self.step(pyramid, hidden, context, x)
        mask = MASK_SCALE * self.update_block.mask(hidden[0])
        return self._flow(x), self.upsampler(x, mask)

    def encode(self, left: Tensor, right: Tensor) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, ...]]]:
        """The correlation pyramid, the states to start from, and what the context adds to the gates of each level."""
        pair = torch.cat([left, right])  # no layer mixes the images of a batch
        if self.shape.shared:
            finest = self.cnet.trunk(pair)
            features, finest = self.conv2(finest), finest.chunk(2)[0]
        else:
            features, finest = self.fnet(pair), self.cnet.trunk(left)
        hidden, context = self.cnet(finest, self.shape.layers)
        gates = [conv(c.relu()).chunk(3, dim=1) for conv, c in zip(self.context_zqr_convs, context, strict=True)]
        return correlation_pyramid(*features.chunk(2)), [h.tanh() for h in hidden], gates

    def step(
        self, pyramid: list[Tensor], hidden: list[Tensor], context: list[tuple[Tensor, ...]], x: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """One iteration: the next states and the next flow along the line."""
        looked_up = self.lookup(pyramid, columns(x) + x)
        block, layers = self.update_block, self.shape.layers
        if self.shape.slow_fast:
            # Once the coarsest of three alone, then all but the finest.
            hidden = block.slow(hidden, context, finest=2) if layers == 3 else hidden
            hidden = block.slow(hidden, context)
        hidden = block(hidden, context, looked_up, self._flow(x))
        return hidden, x + block.flow_head(hidden[0])[:, :1]

    @staticmethod
    def _flow(x: Tensor) -> Tensor:
        """The flow of a rectified pair: nothing moves across lines."""
        return torch.cat([x, torch.zeros_like(x)], dim=1)
