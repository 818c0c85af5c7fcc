"""Selective-RAFT as trained: 11,654,706 parameters, 352 keys; whole, and in the three pieces that a host loop drives.

Source: Wang et al., "Selective-Stereo: Adaptive Frequency Information Selection for Stereo Matching", CVPR 2024,
https://arxiv.org/abs/2403.00486; https://github.com/Windsrain/Selective-Stereo (MIT). Written from the published
equations and the checkpoint's keys and shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import ChannelAttention, SpatialAttention
from .correlation import GridLookup, columns, correlation_pyramid
from .encoder import ContextNetwork, FeatureNetwork
from .raft import Shape, scaled
from .update import MASK_SCALE, SelectiveUpdate
from .upsample import ConvexUpsample


@dataclass(frozen=True)
class Encoded:
    """What is computed once per pair: per level, the finest first; the pyramid by its own levels.

    Attributes:
        hidden: states to start from.
        context: what the units take of the context.
        attention: attention maps.
        pyramid: correlation pyramid.
    """

    hidden: list[Tensor]
    context: list[Tensor]
    attention: list[Tensor]
    pyramid: list[Tensor]


class SelectiveRaft(nn.Module):
    """``left``, ``right (B, 3, H, W)`` in 0..255 to the flow from left to right, which is the negative disparity.

    Args:
        shape: number of levels and stride.
        iterations: how often the flow is updated, unless a call says otherwise.
        attention_map: whether to return the attention maps too.
        all_predictions: whether to return the flow at full size after every iteration too.
    """

    def __init__(
        self, shape: Shape, iterations: int, attention_map: bool = False, all_predictions: bool = False
    ) -> None:
        super().__init__()
        self.shape, self.iterations = shape, iterations
        self.attention_map, self.all_predictions = attention_map, all_predictions
        self.fnet, self.cnet = FeatureNetwork(shape.downsample), ContextNetwork(shape.downsample)
        self.update_block = SelectiveUpdate(shape.layers, shape.factor)
        self.sam, self.cam = SpatialAttention(), ChannelAttention()
        self.lookup: nn.Module = GridLookup()
        self.upsampler: nn.Module = ConvexUpsample(shape.factor)

    def forward(self, left: Tensor, right: Tensor, iterations: int | None = None) -> tuple[Tensor, ...]:
        """The last flow.

        Args:
            left: left image.
            right: right image.
            iterations: at least 1; by default as the network was made.

        Returns:
            ``low (B, 1, h, w)``, pixels of that size; ``up (B, 1, H, W)``, pixels; then, if asked for, the attention
            maps, the finest first, and ``(iterations * B, 1, H, W)``, all predictions in order.

        Raises:
            ValueError: for no iteration.
        """
        count = self.iterations if iterations is None else iterations
        if count < 1:
            raise ValueError(f"{count} iterations: the flow is what the last one gives")
        encoded = self.encode(left, right)
        hidden, low, predictions = encoded.hidden, self.start(encoded), []
        for _ in range(count):
            hidden, low = self.step(encoded, hidden, low)
            if self.all_predictions:
                predictions.append(self.finish(hidden[0], low))
        up = predictions[-1] if predictions else self.finish(hidden[0], low)
        more = [torch.cat(predictions)] if predictions else []
        return low, up, *(encoded.attention if self.attention_map else []), *more

    def encode(self, left: Tensor, right: Tensor) -> Encoded:
        """Everything before the first iteration."""
        left, right = scaled(left), scaled(right)
        features = self.fnet(torch.cat([left, right]))  # no layer mixes the images of a batch
        hidden, context = self.cnet(self.cnet.trunk(left), self.shape.layers)
        weighted = [self.cam(c) * c for c in (c.relu() for c in context)]
        return Encoded(
            hidden=[h.tanh() for h in hidden],
            context=self.update_block.prepare(weighted),
            attention=[self.sam(c) for c in weighted],
            pyramid=correlation_pyramid(*features.chunk(2)),
        )

    @staticmethod
    def start(encoded: Encoded) -> Tensor:
        """The flow before the first iteration: none."""
        return torch.zeros_like(encoded.hidden[0][:, :1])

    def step(self, encoded: Encoded, hidden: list[Tensor], low: Tensor) -> tuple[list[Tensor], Tensor]:
        """One iteration: the next states and the next flow."""
        looked_up = self.lookup(encoded.pyramid, columns(low) + low)
        hidden = self.update_block(hidden, encoded.context, encoded.attention, looked_up, low)
        return hidden, self.update_block.next_flow(low, hidden[0])

    def finish(self, finest: Tensor, low: Tensor) -> Tensor:
        """The flow at full size, from the finest state and the flow."""
        full: Tensor = self.upsampler(low, MASK_SCALE * self.update_block.mask(finest))
        return full


class Encoder(nn.Module):
    """The first graph of the loop: the images to everything that the iterations need."""

    def __init__(self, network: SelectiveRaft) -> None:
        super().__init__()
        self.network = network

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        """``left``, ``right`` to states, contexts, attention maps, each the finest first; the pyramid; no flow."""
        encoded = self.network.encode(left, right)
        return (
            *encoded.hidden, *encoded.context, *encoded.attention, *encoded.pyramid, self.network.start(encoded)
        )  # fmt: skip


class Update(nn.Module):
    """The second graph of the loop: one iteration."""

    def __init__(self, network: SelectiveRaft) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        hidden04: Tensor,
        hidden08: Tensor,
        hidden16: Tensor,
        context04: Tensor,
        context08: Tensor,
        context16: Tensor,
        attention04: Tensor,
        attention08: Tensor,
        attention16: Tensor,
        correlation0: Tensor,
        correlation1: Tensor,
        correlation2: Tensor,
        correlation3: Tensor,
        low: Tensor,
    ) -> tuple[Tensor, ...]:
        """What :class:`Encoder` gives, with the states and the flow of the last iteration, to the next of these."""
        encoded = Encoded(
            hidden=[hidden04, hidden08, hidden16],
            context=[context04, context08, context16],
            attention=[attention04, attention08, attention16],
            pyramid=[correlation0, correlation1, correlation2, correlation3],
        )
        hidden, low = self.network.step(encoded, encoded.hidden, low)
        return *hidden, low


class Upsampler(nn.Module):
    """The third graph of the loop: the finest state and the flow to the flow at full size."""

    def __init__(self, network: SelectiveRaft) -> None:
        super().__init__()
        self.network = network

    def forward(self, finest: Tensor, low: Tensor) -> Tensor:
        return self.network.finish(finest, low)
