"""Selective-IGEV, a stereo network of 13,140,932 parameters, as it was trained: 785 keys in its state dict.

Source: Wang et al., "Selective-Stereo: Adaptive Frequency Information Selection for Stereo Matching", CVPR 2024, upon
Xu et al., "Iterative Geometry Encoding Volume for Stereo Matching", CVPR 2023. Written from the published equations and
the checkpoint's keys and shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..stereo.attention import ChannelAttention, SpatialAttention
from ..stereo.raft import scaled
from ..stereo.update import MASK_SCALE
from .aggregation import CostAggregation, FeatureAttention
from .context import ContextNetwork
from .layers import BatchNormed, InstanceNormed, Joined, convolution, stem
from .trunk import Features
from .update import MASK_CHANNELS, UpdateBlock
from .upsample import upsampled, weight_head
from .volume import geometry_lookup, group_wise_correlation, halved, line_correlation, mean_disparity
from .widths import GROUPS


class Encoded(NamedTuple):
    """What is computed once per pair of images; triples are at strides 4, 8 and 16.

    Attributes:
        hidden: the first hidden states, 128 channels each.
        context: what the units take of the left image in every iteration.
        attention: the weight of the small kernel, one channel each.
        geometry: the geometry encoding volume ``(B, 8, D, h, w)`` and its halved one.
        correlation: the correlation of lines ``(B, w, h, w)`` and its halved one.
        disparity: the first disparity ``(B, 1, h, w)``, pixels of a quarter of the size.
        stem: the left image's features ``(B, 32, 2h, 2w)``.
    """

    hidden: Sequence[Tensor]
    context: Sequence[Tensor]
    attention: Sequence[Tensor]
    geometry: tuple[Tensor, Tensor]
    correlation: tuple[Tensor, Tensor]
    disparity: Tensor
    stem: Tensor


class SelectiveIGEV(nn.Module):
    """``left, right (B, 3, H, W)``, RGB 0..255, to ``disparity (B, 1, H, W)``, positive, pixels.

    Args:
        max_disparity: pixels, a multiple of 32: how far the volume reaches. No weight depends on it.
        iterations: how often the disparity is updated where ``forward`` is not told.
        attention_map: whether ``forward`` also gives the attention maps, the finest first.
    """

    def __init__(self, max_disparity: int = 192, iterations: int = 8, attention_map: bool = False) -> None:
        super().__init__()
        self.disparities, self.iterations, self.attention_map = max_disparity // 4, iterations, attention_map
        self.cnet = ContextNetwork()
        self.update_block = UpdateBlock()
        self.sam, self.cam = SpatialAttention(), ChannelAttention()
        self.feature = Features()
        self.stem_2, self.stem_4 = stem(3, 32, stride=2), stem(32, 48, stride=2)
        # Training alone upsamples the first disparity, by these three; every checkpoint has them.
        self.spx, self.spx_2, self.spx_4 = weight_head(), Joined(InstanceNormed, 24, 32), stem(96, 24, stride=1)
        self.spx_2_gru, self.spx_gru = Joined(BatchNormed, MASK_CHANNELS, MASK_CHANNELS), weight_head()
        self.conv, self.desc = InstanceNormed(convolution(96, 96, 3), 96), nn.Conv2d(96, 96, 1)
        self.corr_stem = BatchNormed(convolution(GROUPS, GROUPS, 3, rank=3), GROUPS, rank=3)
        self.corr_feature_att = FeatureAttention(GROUPS, 96)
        self.cost_agg = CostAggregation()
        self.classifier = convolution(GROUPS, 1, 3, rank=3)

    def forward(self, left: Tensor, right: Tensor, iterations: int | None = None) -> tuple[Tensor, ...]:
        """The disparity after the last iteration.

        Args:
            left: left image.
            right: right image.
            iterations: at least 1; by default as the network was made.

        Returns:
            ``disparity (B, 1, H, W)``; then, if asked for, the attention maps at strides 4, 8 and 16.

        Raises:
            ValueError: for no iteration; the upsampler reads what the last one gives.
        """
        count = self.iterations if iterations is None else iterations
        if count < 1:
            raise ValueError(f"{count} iterations: the upsampler reads what the last one gives")
        encoded = self.encode(left, right)
        hidden, disparity, mask_features = encoded.hidden, encoded.disparity, encoded.disparity
        for _ in range(count):
            hidden, mask_features, disparity = self.update(encoded, hidden, disparity)
        full = self.upsample(mask_features, encoded.stem, disparity)
        return full, *(encoded.attention if self.attention_map else ())

    def encode(self, left: Tensor, right: Tensor) -> Encoded:
        """Everything before the first iteration."""
        left, right = scaled(left), scaled(right)
        # Both images in one batch: no layer mixes the images of a batch.
        x4, *deeper = self.feature(torch.cat([left, right]))
        stem2 = self.stem_2(torch.cat([left, right]))
        x4 = torch.cat([x4, self.stem_4(stem2)], dim=1)
        matching_left, matching_right = self.desc(self.conv(x4)).chunk(2)
        of_left = [x.chunk(2)[0] for x in (x4, *deeper)]
        volume = self.corr_stem(group_wise_correlation(matching_left, matching_right, self.disparities))
        geometry = self.cost_agg(self.corr_feature_att(volume, of_left[0]), *of_left[1:])
        correlation = line_correlation(matching_left, matching_right)
        (h4, c4), (h8, c8), (h16, c16) = self.cnet(left)
        # The attention depends on the context alone: it is the same in all iterations.
        fine, middle, coarse = (self.cam(c) * c for c in (c4.relu(), c8.relu(), c16.relu()))
        return Encoded(
            hidden=(h4.tanh(), h8.tanh(), h16.tanh()),
            context=self.update_block.prepare((fine, middle, coarse)),
            attention=(self.sam(fine), self.sam(middle), self.sam(coarse)),
            geometry=(geometry, halved(geometry)),
            correlation=(correlation, halved(correlation)),
            disparity=mean_disparity(self.classifier(geometry)),
            stem=stem2.chunk(2)[0],
        )

    def update(
        self, encoded: Encoded, hidden: Sequence[Tensor], disparity: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """One iteration: the next hidden states, the mask features ``(B, 32, h, w)``, the next disparity."""
        looked_up = geometry_lookup(encoded.geometry, encoded.correlation, disparity)
        block = self.update_block
        states = block(hidden, encoded.context, encoded.attention, looked_up, disparity)
        return states, MASK_SCALE * block.mask_feat_4(states[0]), block.next_flow(disparity, states[0])

    def upsample(self, mask_features: Tensor, stem: Tensor, disparity: Tensor) -> Tensor:
        """The disparity at full resolution: see :func:`upsampled`."""
        return upsampled(self.spx_2_gru, self.spx_gru, mask_features, stem, disparity)
