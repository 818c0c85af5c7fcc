"""Selective-IGEV for deployment: normalisations folded, what no iteration changes computed once, cut into three graphs.

The same function of the same inputs as :mod:`network`.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn

from ..stereo.deploy import PreparedUpdate
from ..stereo.rewriting import BEHIND as SHARED
from ..stereo.rewriting import fold_batch_norms, in_float64
from .network import Encoded, SelectiveIGEV
from .update import UpdateBlock

# Which batch normalisation stands behind which convolution, by the class of their owner.
BEHIND = {
    **SHARED,
    "BatchNormed": {"conv": "bn"},
    "DepthwiseSeparable": {"conv_dw": "bn1", "conv_pw": "bn2"},
    "InvertedResidual": {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"},
    "Features": {"conv_stem": "bn1"},
}


def deploy_network(network: SelectiveIGEV) -> SelectiveIGEV:
    """Selective-IGEV without a batch normalisation, and what its units take of the context computed once."""

    def rewrite(deployed: SelectiveIGEV) -> None:
        fold_batch_norms(deployed, BEHIND)
        deployed.update_block = PreparedUpdateBlock(deployed.update_block)
        # PyTorch's ONNX exporter gives a convolution of one output channel and no bias a bias of rank 0, which no
        # runtime takes.
        deployed.classifier.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    return in_float64(network, rewrite)


def deploy_block(block: nn.Module) -> nn.Module:
    """A block without a batch normalisation."""
    return in_float64(block, partial(fold_batch_norms, behind=BEHIND))


class PreparedUpdateBlock(PreparedUpdate):
    """The update whose units' products with the context are computed before the first iteration.

    Args:
        block: the published one.
    """

    def __init__(self, block: UpdateBlock) -> None:
        super().__init__(block)
        self.negative_head = copy.deepcopy(block.disp_head)
        del self.disp_head
        last = self.negative_head.conv2
        last.weight, last.bias = nn.Parameter(-last.weight), nn.Parameter(-last.bias)  # type: ignore[operator]

    def next_flow(self, flow: Tensor, finest: Tensor) -> Tensor:
        """The next disparity, by a subtraction.

        ONNX Runtime fuses an addition behind a convolution, and then adds thousands of small products to a large
        disparity one block after the other: over eight iterations, seven times the error of eager PyTorch.
        """
        return flow - self.negative_head(finest)


class Encoder(nn.Module):
    """The graph before the loop: ``left``, ``right`` to the fields of :class:`Encoded`, one after the other."""

    def __init__(self, network: SelectiveIGEV) -> None:
        super().__init__()
        self.network = network

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        found = self.network.encode(left, right)
        levels = (*found.hidden, *found.context, *found.attention)
        return *levels, *found.geometry, *found.correlation, found.disparity, found.stem


class Update(nn.Module):
    """The graph of one iteration: what :class:`Encoder` gives but the stem, to what changes, and to the mask features.

    Hidden states and disparity are those of the iteration before.
    """

    def __init__(self, network: SelectiveIGEV) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        h4, h8, h16, c4, c8, c16, a4, a8, a16, geometry, coarse_geometry, lines, coarse_lines, disparity = given
        encoded = Encoded(
            hidden=(h4, h8, h16),
            context=(c4, c8, c16),
            attention=(a4, a8, a16),
            geometry=(geometry, coarse_geometry),
            correlation=(lines, coarse_lines),
            disparity=disparity,
            stem=disparity,  # unread: it is for the upsampler
        )
        hidden, mask_features, disparity = self.network.update(encoded, encoded.hidden, disparity)
        return *hidden, disparity, mask_features


class Upsampler(nn.Module):
    """The graph after the loop."""

    def __init__(self, network: SelectiveIGEV) -> None:
        super().__init__()
        self.network = network

    def forward(self, mask_features: Tensor, stem: Tensor, disparity: Tensor) -> Tensor:
        return self.network.upsample(mask_features, stem, disparity)
