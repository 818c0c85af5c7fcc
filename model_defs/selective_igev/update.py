"""One iteration: what the lookup and the disparity say, three selective recurrent units, and the change of disparity.

Source: Wang et al., "Selective-Stereo: Adaptive Frequency Information Selection for Stereo Matching", CVPR 2024.
Written from the published equations and the checkpoint's keys and shapes.
"""

from __future__ import annotations

from torch import nn

from ..stereo.declare import HIDDEN
from ..stereo.update import MotionEncoder, SelectiveUnits
from .widths import LOOKED_UP

# Channels of what the upsampler gets of the hidden state.
MASK_CHANNELS = 32


class UpdateBlock(SelectiveUnits):
    """Three selective units, a lookup of 162 channels, and what the upsampler gets: ``(B, 32, h, w)``."""

    def __init__(self) -> None:
        super().__init__(3, MotionEncoder(1, LOOKED_UP, "d"))
        self.mask_feat_4 = nn.Sequential(nn.Conv2d(HIDDEN, MASK_CHANNELS, 3, padding=1), nn.ReLU())
