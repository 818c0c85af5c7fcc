"""One iteration: what the lookup and the disparity say, three selective recurrent units, and the change of disparity.

Source: Wang et al., "Selective-Stereo: Adaptive Frequency Information Selection for Stereo Matching", CVPR 2024.
Written from the published equations and the checkpoint's keys and shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..stereo.declare import HIDDEN
from ..stereo.gru import SelectiveConvGRU
from ..stereo.update import MASK_SCALE, FlowHead, MotionEncoder, pooled, resized
from .widths import LOOKED_UP

# Channels of what the upsampler gets of the hidden state.
MASK_CHANNELS = 32
Three = tuple[Tensor, Tensor, Tensor]


class UpdateBlock(nn.Module):
    """Hidden states at strides 4, 8 and 16, the coarsest first; each hears the one above and the one below it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder(1, LOOKED_UP, "d")
        self.gru16 = SelectiveConvGRU(HIDDEN, 2 * HIDDEN)
        self.gru08 = SelectiveConvGRU(HIDDEN, 3 * HIDDEN)
        self.gru04 = SelectiveConvGRU(HIDDEN, 3 * HIDDEN)
        self.disp_head = FlowHead(1)
        self.mask_feat_4 = nn.Sequential(nn.Conv2d(HIDDEN, MASK_CHANNELS, 3, padding=1), nn.ReLU())

    def prepare(self, context: Three) -> Three:
        """What the units take of the context in every iteration: here the context itself."""
        return context

    def advance(self, level: int, attention: Tensor, hidden: Tensor, context: Tensor, given: list[Tensor]) -> Tensor:
        """The next hidden state of one level, 0 the finest."""
        unit = (self.gru04, self.gru08, self.gru16)[level]
        state: Tensor = unit(attention, hidden, torch.cat([context, *given], dim=1))
        return state

    def next_disparity(self, disparity: Tensor, finest: Tensor) -> Tensor:
        """The next disparity: changed as the finest hidden state asks for."""
        return disparity + self.disp_head(finest)

    def forward(
        self, hidden: Three, context: Three, attention: Three, looked_up: Tensor, disparity: Tensor
    ) -> tuple[Three, Tensor, Tensor]:
        """One iteration; nothing that is given is changed.

        Args:
            hidden: states at strides 4, 8 and 16, 128 channels each.
            context: what :meth:`prepare` made of what the left image adds at each stride.
            attention: the weight of the small kernel at each stride, one channel each; the same in all iterations.
            looked_up: ``(B, 162, h, w)``.
            disparity: ``(B, 1, h, w)``.

        Returns:
            the next hidden states, what the upsampler gets of the finest ``(B, 32, h, w)``, the next disparity.
        """
        h4, h8, h16 = hidden
        h16 = self.advance(2, attention[2], h16, context[2], [pooled(h8)])
        h8 = self.advance(1, attention[1], h8, context[1], [pooled(h4), resized(h16, h8)])
        finest = [self.encoder(looked_up, disparity), resized(h8, h4)]
        h4 = self.advance(0, attention[0], h4, context[0], finest)
        return (h4, h8, h16), MASK_SCALE * self.mask_feat_4(h4), self.next_disparity(disparity, h4)
