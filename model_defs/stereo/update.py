"""One iteration: what the lookup and the flow say, the recurrent units from coarse to fine, and the change of flow.

Sources: Lipson et al., "RAFT-Stereo: Multilevel Recurrent Field Transforms for Stereo Matching", 3DV 2021,
https://arxiv.org/abs/2109.07547; Wang et al., "Selective-Stereo: Adaptive Frequency Information Selection for Stereo
Matching", CVPR 2024, https://arxiv.org/abs/2403.00486. Written from the published equations and the checkpoints' keys
and shapes. States come in as sequences, the finest first, and go out as new lists: nothing given is changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .declare import HIDDEN, LOOKED_UP, NEIGHBOURS
from .gru import ContextConvGRU, SelectiveConvGRU

# By how much the mask is scaled: published, to keep its gradients small.
MASK_SCALE = 0.25


class MotionEncoder(nn.Module):
    """What the lookup and the flow say, as 128 channels, the last of which are the flow itself.

    Args:
        flow: channels of the flow, or of the disparity.
        looked_up: channels of the lookup.
        letter: what the layers of the flow are named with in a checkpoint: ``f``, or ``d`` where it is a disparity.
    """

    def __init__(self, flow: int, looked_up: int = LOOKED_UP, letter: str = "f") -> None:
        super().__init__()
        self.of_flow = f"conv{letter}1", f"conv{letter}2"
        self.convc1, self.convc2 = nn.Conv2d(looked_up, 64, 1), nn.Conv2d(64, 64, 3, padding=1)
        self.add_module(self.of_flow[0], nn.Conv2d(flow, 64, 7, padding=3))
        self.add_module(self.of_flow[1], nn.Conv2d(64, 64, 3, padding=1))
        self.conv = nn.Conv2d(128, HIDDEN - flow, 3, padding=1)

    def forward(self, looked_up: Tensor, flow: Tensor) -> Tensor:
        """``looked_up (B, looked_up, h, w)`` and ``flow (B, flow, h, w)`` to ``(B, 128, h, w)``."""
        first, second = (self.get_submodule(name) for name in self.of_flow)
        likeness = self.convc2(self.convc1(looked_up).relu()).relu()
        motion = second(first(flow).relu()).relu()
        return torch.cat([self.conv(torch.cat([likeness, motion], dim=1)).relu(), flow], dim=1)


class FlowHead(nn.Module):
    """The change of flow that a hidden state asks for: ``(B, 128, h, w)`` to ``(B, outputs, h, w)``."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.Conv2d(256, outputs, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        change: Tensor = self.conv2(self.conv1(hidden).relu())
        return change


def mask_head(factor: int) -> nn.Sequential:
    """The scores of the upsampler: ``(B, 128, h, w)`` to ``(B, 9 * factor^2, h, w)``."""
    return nn.Sequential(nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, NEIGHBOURS * factor**2, 1))


def pooled(x: Tensor) -> Tensor:
    """Half the size, each value the mean of 3x3; zeros beyond the border count."""
    return functional.avg_pool2d(x, 3, stride=2, padding=1)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, corner on corner, to the size of another map."""
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


def from_neighbours(hidden: Sequence[Tensor], level: int) -> list[Tensor]:
    """What the unit of a level hears of the finer and the coarser one: their states, brought to its size."""
    finer = [pooled(hidden[level - 1])] if level else []
    coarser = [resized(hidden[level + 1], hidden[level])] if level + 1 < len(hidden) else []
    return finer + coarser


def inputs_of(level: int, layers: int) -> int:
    """Channels that the unit of a level hears: motion at the finest, the state of the finer one elsewhere, and the
    state of the coarser one if there is one. A unit that is not used hears as if it were the coarsest."""
    return HIDDEN + HIDDEN * (level + 1 < layers)


class RaftStereoUpdate(nn.Module):
    """The update of RAFT-Stereo; its units are named after strides 8, 16 and 32, wherever they are.

    Args:
        layers: how many units are used, 1 to 3; all three exist.
        factor: stride of the finest.
    """

    def __init__(self, layers: int, factor: int) -> None:
        super().__init__()
        self.encoder = MotionEncoder(2)
        self.gru08, self.gru16, self.gru32 = (ContextConvGRU(HIDDEN, inputs_of(at, layers)) for at in range(3))
        self.flow_head, self.mask = FlowHead(2), mask_head(factor)

    def slow(self, hidden: Sequence[Tensor], context: Sequence[Sequence[Tensor]], finest: int = 1) -> list[Tensor]:
        """The units from the coarsest down to level ``finest``, which is not 0: these hear no motion."""
        states = list(hidden)
        for level in range(len(states) - 1, finest - 1, -1):
            gru = (self.gru08, self.gru16, self.gru32)[level]
            states[level] = gru(states[level], *context[level], torch.cat(from_neighbours(states, level), dim=1))
        return states

    def forward(
        self, hidden: Sequence[Tensor], context: Sequence[Sequence[Tensor]], looked_up: Tensor, flow: Tensor
    ) -> list[Tensor]:
        """One iteration: the next states.

        Args:
            hidden: states, the finest first, ``(B, 128, h, w)`` at 1, 1/2 and 1/4 of that size.
            context: per level what is added to update gate, reset gate and candidate.
            looked_up: ``(B, 36, h, w)``.
            flow: ``(B, 2, h, w)``.
        """
        states = self.slow(hidden, context)
        motion = self.encoder(looked_up, flow)
        states[0] = self.gru08(states[0], *context[0], torch.cat([motion, *from_neighbours(states, 0)], dim=1))
        return states


class SelectiveUnits(nn.Module):
    """What Selective-RAFT and Selective-IGEV update with; the units are named after strides 4, 8 and 16.

    Args:
        layers: how many units there are, 1 to 3; as published, none that is not used.
        encoder: makes motion of what the lookup and the flow say.
    """

    UNITS = ("gru04", "gru08", "gru16")

    def __init__(self, layers: int, encoder: MotionEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        for at, name in enumerate(self.UNITS[:layers]):
            self.add_module(name, SelectiveConvGRU(HIDDEN, HIDDEN + inputs_of(at, layers)))
        self.disp_head = FlowHead(1)

    def unit(self, level: int) -> nn.Module:
        """The unit of a level, 0 the finest."""
        return self.get_submodule(self.UNITS[level])

    def prepare(self, context: Sequence[Tensor]) -> list[Tensor]:
        """What the units take of the context in every iteration: here the context itself."""
        return list(context)

    def advance(self, level: int, attention: Tensor, h: Tensor, context: Tensor, given: list[Tensor]) -> Tensor:
        """The next state of one level."""
        state: Tensor = self.unit(level)(attention, h, torch.cat([context, *given], dim=1))
        return state

    def next_flow(self, flow: Tensor, finest: Tensor) -> Tensor:
        """The next flow, or disparity: changed as the finest state asks for."""
        return flow + self.disp_head(finest)

    def forward(
        self,
        hidden: Sequence[Tensor],
        context: Sequence[Tensor],
        attention: Sequence[Tensor],
        looked_up: Tensor,
        flow: Tensor,
    ) -> list[Tensor]:
        """One iteration: the next states.

        Args:
            hidden: states, the finest first, ``(B, 128, h, w)`` at 1, 1/2 and 1/4 of that size.
            context: what :meth:`prepare` made of the context of each level.
            attention: the weight of the small kernel at each level, ``(B, 1, ...)``; the same in all iterations.
            looked_up: what the lookup gives, ``(B, channels, h, w)``.
            flow: ``(B, 1, h, w)``: flow or disparity.
        """
        states = list(hidden)
        # The finest unit is updated whatever the number of levels.
        for level in range(len(states) - 1, -1, -1):
            motion = [] if level else [self.encoder(looked_up, flow)]
            given = [*motion, *from_neighbours(states, level)]
            states[level] = self.advance(level, attention[level], states[level], context[level], given)
        return states


class SelectiveUpdate(SelectiveUnits):
    """The update of Selective-RAFT.

    Args:
        layers: how many units there are, 1 to 3.
        factor: stride of the finest.
    """

    def __init__(self, layers: int, factor: int) -> None:
        super().__init__(layers, MotionEncoder(1))
        self.mask = mask_head(factor)
