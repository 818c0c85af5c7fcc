"""Image restoration: Restormer, its blocks, and the document's attention and pixel rearrangements.

Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022;
https://arxiv.org/abs/2111.09881. Written from the published equations and the checkpoints' keys and shapes: the
authors' code and weights are under a licence for non-commercial use, and none of either is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.budget import FAIR, Budget
from exporter.settings import LARGEST, Settings
from exporter.spec import Checkpoint, Dim, HostStep, ModelDef, Sample, Tensor, model

if TYPE_CHECKING:
    from torch import nn

PAPER = "Zamir et al., CVPR 2022, arxiv.org/abs/2111.09881"
LICENCE = (
    "Apache-2.0 (this definition, from the published equations and the checkpoints' keys and shapes); the authors' code"
    " and weights are for non-commercial use; none of either is here"
)
WEIGHTS = Checkpoint(
    address="https://github.com/swz30/Restormer/releases/tag/v1.0",
    sha256=None,
    licence="Academic Public License: non-commercial use only",
)
# What tells the published variants apart: channels in and out, and the normalisation.
VARIANTS: dict[str, dict[str, Any]] = {
    "color": {},
    "denoise": {"centred": False},
    "gray": {"inputs": 1, "outputs": 1, "centred": False},
    "dual-pixel": {"inputs": 6, "two_views": True},
}
LEVELS = 4
# Ten times the channels of the deepest published level; the first convolution of an MDTA that wide has 200 MB.
WIDEST = 4096
# Scores of that many heads at the longest sequence are 1 GB.
MOST_HEADS = 256
SAMPLE_SIZE = 128
# Three downsamplings by two; how far tiles of a large picture overlap is the usual choice for this network.
MULTIPLE, OVERLAP = 8, 32
OUTSIDE = "exporter run pads a smaller picture, and cuts a larger one into tiles, whose answer is not the whole one's"


@model
def restormer(
    variant: str = "color",
    dim: int = 48,
    blocks: str = "4,6,6,8",
    refinement: int = 4,
    heads: str = "1,2,4,8",
    expansion: float = 2.66,
    bias: bool = False,
) -> ModelDef:
    """Restormer: ``image (1, 3, H, W)``, 0 to 1, to ``restored`` of the same shape.

    ``exporter run`` cuts a picture larger than H or W may be into overlapping tiles and averages them where they
    overlap. That changes the result: the attention's scores are sums over all pixels of the picture, and a tile has
    others, so a tiled answer is not the whole picture's, nor is that of a picture padded to the smallest size.

    Args:
        variant: ``color`` (deraining, deblurring: ``WithBias``, 26,126,644 parameters), ``denoise`` (colour
            denoising: ``BiasFree``, 26,111,668), ``gray`` (26,109,076) or ``dual-pixel`` (left and right view on six
            channels, 26,132,548; ``exporter run`` takes both as one array of a .npz, no picture file holds them).
        dim: channels of the first level, even; each level doubles them, to 4096 at most.
        blocks: transformer blocks of the four levels.
        refinement: transformer blocks after the decoder.
        heads: attention heads of the four levels; they divide the level's channels.
        expansion: hidden channels per channel of the feed-forward networks.
        bias: whether convolutions have biases; no published checkpoint's have.

    Raises:
        Refused: ``bad-option``.
    """
    shape = _shape(variant, dim, blocks, refinement, heads, expansion, bias)
    inputs, outputs = shape.get("inputs", 3), shape.get("outputs", 3)
    two_views = variant == "dual-pixel"
    views = "left and right view, " if two_views else ""
    image = HostStep("image", {"to": "image", "high": 1.0, "channels": inputs})
    pad = HostStep(
        "pad",
        {"of": ["image"], "multiple": ["H.unit", "W.unit"], "at_least": ["H.min", "W.min"], "mode": "reflect"},
    )
    tile = HostStep("tile", {"of": ["image"], "size": ["H.max", "W.max"], "overlap": OVERLAP, "multiple": MULTIPLE})
    options = {
        "variant": variant, "dim": dim, "blocks": _text(shape["blocks"]), "refinement": refinement,
        "heads": _text(shape["heads"]), "expansion": expansion, "bias": bias,
    }  # fmt: skip
    return ModelDef(
        name="restormer",
        family="restoration",
        build=partial(_restormer, shape),
        deploy=partial(_made, ".deploy", "deploy_restormer"),
        inputs=(Tensor("image", (1, inputs, "H", "W"), f"degraded image, {views}0 to 1", low=0.0, high=1.0),),
        outputs=(Tensor("restored", (1, outputs, "H", "W"), "restored image, 0 to 1 but for overshoot"),),
        dims=(Dim("H", 64, 128, 256, MULTIPLE, OUTSIDE), Dim("W", 64, 128, 256, MULTIPLE, OUTSIDE)),
        checkpoint=WEIGHTS if shape == _shape(variant) else None,
        # No picture file holds two views.
        before=(pad, tile) if two_views else (image, pad, tile),
        after=(
            HostStep("untile", {"of": ["restored"], "like": "image"}),
            HostStep("crop", {"of": ["restored"], "like": "image"}),
            HostStep("clamp", {"of": "restored", "low": 0.0, "high": 1.0, "to": "image"}),
        ),
        metrics=("psnr", "ssim"),
        samples=None if two_views else partial(_degraded_photographs, inputs),
        calibration=None if two_views else partial(_degraded_photographs, inputs, range(2, 6)),
        budget=Budget(decibels=FAIR, losses={"psnr": 0.05}),
        source=PAPER,
        licence=LICENCE,
        options=options,
    )


@model
def mdta(dim: int = 48, heads: int = 1, bias: bool = False) -> ModelDef:
    """Restormer's transposed attention, between channels: ``x (1, dim, H, W)`` to ``y`` of the same shape.

    Args:
        dim: channels in and out, to 4096.
        heads: attention heads; they divide the channels.
        bias: whether the three convolutions have biases; no published checkpoint's have.

    Raises:
        Refused: ``bad-option``.
    """
    settings = Settings("mdta")
    settings.whole("dim", dim, most=WIDEST)
    settings.whole("heads", heads)
    settings.flag("bias", bias)
    if dim % heads:
        raise settings.refusal("heads", heads, f"heads divide the {dim} channels among them")
    return ModelDef(
        name="mdta",
        family="restoration",
        build=partial(_made, ".blocks", "MDTA", dim, heads, bias),
        deploy=partial(_made, ".deploy", "deploy_mdta"),
        inputs=(Tensor("x", (1, dim, "H", "W"), "feature map", low=-4.0, high=4.0),),
        outputs=(Tensor("y", (1, dim, "H", "W"), "feature map, without the residual connection"),),
        dims=(Dim("H", 2, 32, 128), Dim("W", 2, 32, 128)),
        source=PAPER,
        licence=LICENCE,
        options={"dim": dim, "heads": heads, "bias": bias},
    )


@model
def conv_gated_ffn(dim: int = 48, expansion: float = 2.66, bias: bool = False) -> ModelDef:
    """Restormer's gated feed-forward network (GDFN): ``x (1, dim, H, W)`` to ``y`` of the same shape.

    Args:
        dim: channels in and out, to 4096.
        expansion: hidden channels per channel; ``int(dim * expansion)`` of them.
        bias: whether the three convolutions have biases; no published checkpoint's have.

    Raises:
        Refused: ``bad-option``.
    """
    settings = Settings("conv-gated-ffn")
    settings.whole("dim", dim, most=WIDEST)
    settings.flag("bias", bias)
    _widening(settings, dim, expansion)
    return ModelDef(
        name="conv-gated-ffn",
        family="restoration",
        build=partial(_made, ".blocks", "ConvGatedFFN", dim, expansion, bias),
        deploy=partial(_made, ".deploy", "deploy_ffn"),
        inputs=(Tensor("x", (1, dim, "H", "W"), "feature map", low=-4.0, high=4.0),),
        outputs=(Tensor("y", (1, dim, "H", "W"), "feature map, without the residual connection"),),
        dims=(Dim("H", 2, 32, 128), Dim("W", 2, 32, 128)),
        source=PAPER,
        licence=LICENCE,
        options={"dim": dim, "expansion": expansion, "bias": bias},
    )


@model
def multi_head_attention(heads: int = 2, channels: int = 16, mask: bool = False) -> ModelDef:
    """Attention between positions in the document's layout: ``q, k, v (1, heads, channels, L)`` to ``y`` likewise.

    Args:
        heads: how many attend side by side, to 256.
        channels: channels per head, the document's ``c_per``; of all heads together 4096 at most.
        mask: whether an input ``mask (1, 1, L, L)`` is added to the scores.

    Raises:
        Refused: ``bad-option``.
    """
    settings = Settings("multi-head-attention")
    settings.whole("heads", heads, most=MOST_HEADS)
    settings.whole("channels", channels, most=WIDEST // heads)
    settings.flag("mask", mask)
    shape = (1, heads, channels, "L")
    features = [
        Tensor(name, shape, f"{what}: batch, head, channel, position", low=-4.0, high=4.0)
        for name, what in (("q", "queries"), ("k", "keys"), ("v", "values"))
    ]
    meaning = "added to the scores, query by key: 0 where a query may look, very negative where not"
    masks = [Tensor("mask", (1, 1, "L", "L"), meaning, low=-16.0, high=0.0)] if mask else []
    return ModelDef(
        name="multi-head-attention",
        family="restoration",
        build=partial(_made, ".blocks", "MultiHeadAttention"),
        inputs=(*features, *masks),
        outputs=(Tensor("y", shape, "values weighted by attention, same layout"),),
        dims=(Dim("L", 2, 256, 1024),),
        source="the document's attention; Vaswani et al., NeurIPS 2017, arxiv.org/abs/1706.03762",
        licence="Apache-2.0",
        options={"heads": heads, "channels": channels, "mask": mask},
    )


@model
def pixel_unshuffle(factor: int = 2, channels: int = 3) -> ModelDef:
    """Blocks of pixels to channels: ``x (1, channels, H, W)`` to ``y (1, channels * factor^2, H/factor, W/factor)``.

    Args:
        factor: pixels of a block's side, 2 to 16: by 1 nothing is rearranged.
        channels: channels in; of the result there are 4096 at most.

    Raises:
        Refused: ``bad-option``.
    """
    _rearranged("pixel-unshuffle", factor, channels)
    sizes = (2 * factor, 16 * factor, 64 * factor, factor)
    return ModelDef(
        name="pixel-unshuffle",
        family="restoration",
        build=partial(_made, "torch.nn", "PixelUnshuffle", factor),
        inputs=(Tensor("x", (1, channels, "H", "W"), "feature map"),),
        outputs=(
            Tensor(
                "y",
                (1, channels * factor**2, f"H/{factor}", f"W/{factor}"),
                "channel c * factor^2 + row * factor + column",
            ),
        ),
        dims=(Dim("H", *sizes), Dim("W", *sizes)),
        source="Shi et al., CVPR 2016, arxiv.org/abs/1609.05158, the inverse of its pixel shuffle",
        licence="Apache-2.0",
        options={"factor": factor, "channels": channels},
    )


@model
def pixel_shuffle(factor: int = 2, channels: int = 3) -> ModelDef:
    """Channels to blocks of pixels: ``x (1, channels * factor^2, H, W)`` to ``y (1, channels, H*factor, W*factor)``.

    Args:
        factor: pixels of a block's side, 2 to 16: by 1 nothing is rearranged.
        channels: channels out; of the input there are 4096 at most.

    Raises:
        Refused: ``bad-option``.
    """
    _rearranged("pixel-shuffle", factor, channels)
    return ModelDef(
        name="pixel-shuffle",
        family="restoration",
        build=partial(_made, "torch.nn", "PixelShuffle", factor),
        inputs=(Tensor("x", (1, channels * factor**2, "H", "W"), "channel c * factor^2 + row * factor + column"),),
        outputs=(Tensor("y", (1, channels, f"H*{factor}", f"W*{factor}"), "feature map"),),
        dims=(Dim("H", 1, 16, 64), Dim("W", 1, 16, 64)),
        source="Shi et al., CVPR 2016, arxiv.org/abs/1609.05158",
        licence="Apache-2.0",
        options={"factor": factor, "channels": channels},
    )


def _shape(
    variant: str,
    dim: int = 48,
    blocks: str = "4,6,6,8",
    refinement: int = 4,
    heads: str = "1,2,4,8",
    expansion: float = 2.66,
    bias: bool = False,
) -> dict[str, Any]:
    """The fields of ``network.Shape`` that the options of ``restormer`` ask for; by default a published one."""
    settings = Settings("restormer")
    settings.one_of("variant", variant, VARIANTS)
    per_level = settings.wholes("blocks", blocks, count=LEVELS)
    head_counts = settings.wholes("heads", heads, count=LEVELS)
    settings.whole("dim", dim, least=2, most=WIDEST // 2 ** (LEVELS - 1), multiple=2)
    settings.whole("refinement", refinement)
    settings.flag("bias", bias)
    if any(dim * 2**level % count for level, count in enumerate(head_counts)):
        widths = ", ".join(str(dim * 2**level) for level in range(LEVELS))
        raise settings.refusal("heads", heads, f"the {widths} channels of the levels are divided by their heads")
    _widening(settings, dim, expansion)
    return {
        **VARIANTS[variant], "dim": dim, "blocks": per_level, "refinement": refinement, "heads": head_counts,
        "expansion": expansion, "bias": bias,
    }  # fmt: skip


def _text(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)


def _widening(settings: Settings, dim: int, expansion: float) -> None:
    """The rule of a feed-forward network's ``expansion``."""
    settings.number("expansion", expansion, 0, LARGEST / dim)
    if int(dim * expansion) < 1:
        raise settings.refusal("expansion", expansion, f"of {dim} channels it makes at least one hidden channel")


def _rearranged(name: str, factor: int, channels: int) -> None:
    """The rules of a pixel rearrangement's options."""
    settings = Settings(name)
    settings.whole("factor", factor, least=2, most=16)
    settings.whole("channels", channels, most=WIDEST // factor**2)


def _degraded_photographs(channels: int, which: Sequence[int] = range(2)) -> Iterator[Sample]:
    """Noisy and blurred photographs in turn, with the clean ones as truth; none where scikit-image is absent."""
    from .._photographs import count, distorted, photograph

    for index in which if count() else ():
        kind, picture = ("noise", "blur")[index % 2], photograph(index, SAMPLE_SIZE, SAMPLE_SIZE)
        given, truth = distorted(picture, kind, 0.5, seed=0), picture
        if channels == 1:
            given, truth = (np.round(p.mean(axis=2, keepdims=True)).astype(np.uint8) for p in (given, truth))
        wanted = truth.transpose(2, 0, 1)[np.newaxis].astype(np.float32) / 255
        name = f"{kind}-photograph" if index < 2 else f"{kind}-photograph-{index}"
        yield Sample(name, {"image": given}, {"image": wanted})


def _restormer(shape: dict[str, Any]) -> nn.Module:
    from .network import Restormer, Shape

    return Restormer(Shape(**shape))


def _made(module: str, name: str, *arguments: Any) -> nn.Module:
    """What a class or function of a module gives; the module, and PyTorch with it, is imported only now."""
    made: nn.Module = getattr(import_module(module, __package__), name)(*arguments)
    return made
