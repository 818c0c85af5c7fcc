"""The context network: from the left image, hidden states to start with and a constant input, at strides 4, 8 and 16.

Source: Lipson et al., "RAFT-Stereo: Multilevel Recurrent Field Transforms for Stereo Matching", 3DV 2021, under the
names of Selective-IGEV's checkpoints. Written from the published description and the checkpoint's keys and shapes.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..stereo.declare import HIDDEN
from ..stereo.encoder import Trunk, head, stage

# How many of the trunk's stages halve the size: the finest maps are at stride 4.
HALVINGS = 2
Pair = tuple[Tensor, Tensor]


class ContextNetwork(Trunk):
    """``x (B, 3, H, W)`` to three pairs of 128 channels, at strides 4, 8 and 16: hidden state and context, both raw."""

    def __init__(self) -> None:
        super().__init__("batch", HALVINGS)
        self.layer4, self.layer5 = stage(128, 128, "batch", 2), stage(128, 128, "batch", 2)
        self.outputs04 = nn.ModuleList([head(), head()])
        self.outputs08 = nn.ModuleList([head(), head()])
        self.outputs16 = nn.ModuleList([nn.Conv2d(128, HIDDEN, 3, padding=1) for _ in range(2)])

    def forward(self, x: Tensor) -> tuple[Pair, Pair, Pair]:
        x4 = self.trunk(x)
        x8 = self.layer4(x4)
        x16 = self.layer5(x8)
        return _pair(self.outputs04, x4), _pair(self.outputs08, x8), _pair(self.outputs16, x16)


def _pair(heads: nn.ModuleList, x: Tensor) -> Pair:
    hidden, context = heads
    return hidden(x), context(x)
