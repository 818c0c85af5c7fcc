"""Full resolution from a quarter: each pixel is a mixture of the nine coarse disparities around it.

Source: Yang et al., "Superpixel Segmentation with Fully Convolutional Networks", CVPR 2020 (the mixture); Xu et al.,
"Iterative Geometry Encoding Volume for Stereo Matching", CVPR 2023 (its use). Written from the published equations and
the checkpoint's keys and shapes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ..stereo.declare import NEIGHBOURS
from ..stereo.upsample import neighbours
from .layers import BatchNormed, Joined
from .update import MASK_CHANNELS

FACTOR = 4


def superpixel_upsample(disparity: Tensor, weights: Tensor) -> Tensor:
    """``disparity (B, 1, h, w)`` and ``weights (B, 9, 4h, 4w)`` that sum to 1, to pixels of ``(B, 1, 4h, 4w)``.

    A disparity at a quarter of the size counts pixels four times as wide.
    """
    around = functional.interpolate(neighbours(FACTOR * disparity), scale_factor=FACTOR, mode="nearest")
    return (around * weights).sum(dim=1, keepdim=True)


def upsampled(joined: nn.Module, head: nn.Module, mask_features: Tensor, stem: Tensor, disparity: Tensor) -> Tensor:
    """To full resolution, with the mixture that the iterations and the image ask for.

    Args:
        joined: joins the two features at half the size: 64 channels.
        head: gives nine scores per pixel.
        mask_features: what the last iteration says of superpixels ``(B, 32, h, w)``.
        stem: the left image's features ``(B, 32, 2h, 2w)``.
        disparity: ``(B, 1, h, w)``, pixels of this resolution.

    Returns:
        ``(B, 1, 4h, 4w)``, pixels of the image.
    """
    scores = head(joined(mask_features, stem))
    return superpixel_upsample(disparity, scores.softmax(dim=1))


def weight_head() -> nn.Sequential:
    """From joined features at half the size to nine scores per pixel."""
    return nn.Sequential(nn.ConvTranspose2d(2 * MASK_CHANNELS, NEIGHBOURS, 4, stride=2, padding=1))


class SuperpixelUpsample(nn.Module):
    """The upsampler as a block, under the names of the checkpoint: see :func:`upsampled`."""

    def __init__(self) -> None:
        super().__init__()
        self.spx_2_gru = Joined(BatchNormed, MASK_CHANNELS, MASK_CHANNELS)
        self.spx_gru = weight_head()

    def forward(self, mask_features: Tensor, stem: Tensor, disparity: Tensor) -> Tensor:
        return upsampled(self.spx_2_gru, self.spx_gru, mask_features, stem, disparity)
