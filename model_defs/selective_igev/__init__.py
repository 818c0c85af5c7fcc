"""Selective-IGEV, a stereo network of 13,140,932 parameters: unrolled, as three graphs of a host loop, and its blocks.

Source: Wang et al., "Selective-Stereo: Adaptive Frequency Information Selection for Stereo Matching", CVPR 2024;
https://github.com/Windsrain/Selective-Stereo (MIT); upon Xu et al., "Iterative Geometry Encoding Volume for Stereo
Matching", CVPR 2023. Written from the published equations and the checkpoint's keys and shapes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from exporter.settings import Settings
from exporter.spec import Checkpoint, Dim, HostStep, ModelDef, Part, State, Tensor, model

from ..stereo import declare
from ..stereo.declare import HIDDEN, MOST_CHANNELS, MOST_ITERATIONS, PREPARED
from .widths import GROUPS, LOOKED_UP

if TYPE_CHECKING:
    from torch import nn

SOURCE = "Wang et al., CVPR 2024, arxiv.org/abs/2403.00486, github.com/Windsrain/Selective-Stereo"
IGEV = "Xu et al., CVPR 2023, arxiv.org/abs/2303.06615"
LICENCE = "Apache-2.0 (this definition); MIT (published architecture and weights)"
BLOCK_LICENCE = "Apache-2.0 (this definition, from the published equations); MIT (published architecture)"
PUBLISHED = Checkpoint(
    address="https://github.com/Windsrain/Selective-Stereo, the folder that its README links: sceneflow.pth of IGEV",
    sha256=None,
    licence="MIT",
)
NARROWEST = 64
ONE_PIXEL = "the features at stride 32 would be one column wide: the networks are untested there"
# The 3-D network halves the disparities at stride 4 three times.
DISPARITY_STEP, MOST_DISPARITY = 32, 4096
_CONVS = ("conv1", "conv2")
_NORM = ("weight", "bias", "running_mean", "running_var")
# The last normalisation of the 3-D network is in every checkpoint and in no equation.
UNUSED_NORM = tuple(f"conv1_up.bn.{name}" for name in _NORM)
# An instance normalisation behind a convolution takes its scale away again.
SCALED_AWAY = (
    *(
        f"feature.{joined}.{conv}.conv.weight"
        for joined in ("deconv32_16", "deconv16_8", "deconv8_4")
        for conv in _CONVS
    ),
    *("feature.conv4.conv.weight", "conv.conv.weight"),
    *(f"{stem}.{conv}.weight" for stem in ("stem_2", "stem_4") for conv in ("0.conv", "1")),
)
UNDETECTABLE = (
    *SCALED_AWAY,
    # Training alone upsamples the first disparity, by these layers.
    *("spx.0.weight", "spx.0.bias"),
    *("spx_2.conv1.conv.weight", "spx_2.conv2.conv.weight", "spx_4.0.conv.weight", "spx_4.1.weight"),
    *(f"cost_agg.{name}" for name in UNUSED_NORM),
    # Small shares at the coarse strides: of a bias, 1 % moves the disparity by 0.3 to 3.4 times eager's own error.
    *(f"update_block.{unit}.{size}_gru.convr.bias" for unit in ("gru16", "gru08") for size in ("small", "large")),
    *("cnet.layer5.1.norm1.bias", "cnet.layer5.1.norm2.bias"),
)


# --------------------------------------------------------------------------------------------------- networks


@model
def selective_igev(
    iterations: int = 8,
    max_disparity: int = 192,
    attention_map: bool = False,
    max_height: int = 128,
    max_width: int = 256,
) -> ModelDef:
    """Selective-IGEV, the iterations unrolled: ``left``, ``right (1, 3, H, W)`` to positive disparities.

    Args:
        iterations: how often the disparity is updated, 1 to 32; the graph grows with it.
        max_disparity: pixels, a multiple of 32 to 4096: how far the volume reaches; 192, and 768 for Middlebury.
        attention_map: whether the attention map of each level is an output too.
        max_height: pixels, a multiple of 32: the largest image.
        max_width: the same of its width.

    Raises:
        Refused: ``bad-option``.
    """
    name = "selective-igev"
    settings = Settings(name)
    settings.whole("iterations", iterations, most=MOST_ITERATIONS)
    settings.flag("attention_map", attention_map)
    settings.whole("max_disparity", max_disparity, DISPARITY_STEP, MOST_DISPARITY, DISPARITY_STEP)
    maps = _attention() if attention_map else ()
    return ModelDef(
        name=name,
        family="selective_igev",
        build=partial(_network, max_disparity, iterations, attention_map),
        deploy=_deployed,
        inputs=declare.images(),
        outputs=(_disparity(), *maps),
        dims=declare.sizes(name, max_height, max_width, NARROWEST, ONE_PIXEL),
        checkpoint=PUBLISHED,
        **_around(),
        undetectable=UNDETECTABLE,
        source=SOURCE,
        licence=LICENCE,
        options={
            "iterations": iterations, "max_disparity": max_disparity, "attention_map": attention_map,
            "max_height": max_height, "max_width": max_width,
        },
    )  # fmt: skip


@model
def selective_igev_loop(
    max_disparity: int = 192, attention_map: bool = False, max_height: int = 96, max_width: int = 128
) -> ModelDef:
    """Selective-IGEV as three graphs, so that the number of iterations is chosen at every run.

    Args:
        max_disparity: pixels, a multiple of 32 to 4096: how far the volume reaches.
        attention_map: whether the attention map of each level is an output too.
        max_height: pixels, a multiple of 32: the largest image.
        max_width: the same of its width.

    Raises:
        Refused: ``bad-option``.
    """
    name = "selective-igev-loop"
    Settings(name).flag("attention_map", attention_map)
    Settings(name).whole("max_disparity", max_disparity, DISPARITY_STEP, MOST_DISPARITY, DISPARITY_STEP)
    sizes = declare.sizes(name, max_height, max_width, NARROWEST, ONE_PIXEL)
    hidden = declare.per_level("hidden", HIDDEN, "hidden state")
    low = Tensor("disparity_low", (1, 1, "H/4", "W/4"), "disparity in pixels at 1/4", low=0.0, high=max_disparity / 4)
    state = (*hidden, low)
    following = tuple(Tensor(f"next_{t.name}", t.shape, f"the next {t.name}") for t in state)
    needed = (*hidden, *_constant(max_disparity // 4), low)
    stem = Tensor("stem", (1, 32, "H/2", "W/2"), "features of the left image at 1/2", low=0.0)
    mask = Tensor("mask_features", (1, 32, "H/4", "W/4"), "what the last iteration says of superpixels", low=0.0)
    return ModelDef(
        name=name,
        family="selective_igev",
        build=partial(_network, max_disparity, attention_map=attention_map),
        deploy=_deployed,
        inputs=declare.images(),
        outputs=(_disparity(), *(_attention() if attention_map else ())),
        dims=(*sizes, Dim("iterations", 1, 8, MOST_ITERATIONS)),
        parts=(
            Part("encoder", partial(_graph, "Encoder"), declare.images(), (*needed, stem)),
            Part(
                "update",
                partial(_graph, "Update"),
                needed,
                (*following, mask),
                repeat="iterations",
                state=tuple(State(t.name, n.name) for t, n in zip(state, following, strict=True)),
            ),
            Part("upsampler", partial(_graph, "Upsampler"), (mask, stem, low), (_disparity(),)),
        ),
        checkpoint=PUBLISHED,
        **_around(),
        undetectable=UNDETECTABLE,
        source=SOURCE,
        licence=LICENCE,
        options={
            "max_disparity": max_disparity, "attention_map": attention_map, "max_height": max_height,
            "max_width": max_width,
        },
    )  # fmt: skip


def _around() -> dict[str, Any]:
    """Host steps, metrics and samples: the family's, but that a disparity here is positive."""
    after = HostStep("crop", {"of": ["disparity"], "like": "left"}), HostStep("disparity", {"from": "disparity"})
    return {**declare.around("disparity"), "after": after}


def _disparity() -> Tensor:
    return Tensor("disparity", (1, 1, "H", "W"), "pixels, positive: a point at x of the left image is at x - disparity")


def _attention() -> tuple[Tensor, ...]:
    return declare.per_level("attention", 1, "weight of the small kernel, 0 to 1")


def _constant(disparities: int) -> tuple[Tensor, ...]:
    """What the encoder gives every iteration."""
    at, fine = "averaged in pairs", ("H/4", "W/4")
    return (
        *declare.per_level("context", PREPARED, "what the context adds to the gates of the small and the large unit"),
        *_attention(),
        Tensor("geometry", (1, GROUPS, disparities, *fine), "geometry encoding volume: group, disparity, row, column"),
        Tensor("geometry_halved", (1, GROUPS, disparities // 2, *fine), f"the same, disparities {at}"),
        Tensor("correlation", (1, "W/4", *fine), "likeness to every pixel of the right line: its column first"),
        Tensor("correlation_halved", (1, "W/8", *fine), f"the same, columns of the right line {at}"),
    )


# ----------------------------------------------------------------------------------------------------- blocks


@model
def group_wise_correlation(channels: int = 96, groups: int = GROUPS, disparities: int = 48) -> ModelDef:
    """Two feature maps to their likeness, group of channels by group: ``volume (1, groups, disparities, H, W)``.

    Args:
        channels: of the features.
        groups: a divisor of the channels.
        disparities: how many columns to the left are compared, from 0.

    Raises:
        Refused: ``bad-option``.
    """
    name = "group-wise-correlation"
    for option, value in (("channels", channels), ("groups", groups), ("disparities", disparities)):
        Settings(name).whole(option, value, most=MOST_CHANNELS)
    if channels % groups:
        raise Settings(name).refusal("groups", groups, f"groups divide the {channels} channels among them")
    features = [_block(side, channels, f"features of the {side} image") for side in ("left", "right")]
    return ModelDef(
        name=name,
        family="selective_igev",
        build=partial(_group_wise_correlation, disparities, groups),
        inputs=tuple(features),
        outputs=(Tensor("volume", (1, groups, disparities, "H", "W"), "mean product per group; 0 before the image"),),
        dims=(Dim("H", 2, 16, 48), Dim("W", 2, 32, 96)),
        source="Guo et al., CVPR 2019, arxiv.org/abs/1903.04025",
        licence=BLOCK_LICENCE,
        options={"channels": channels, "groups": groups, "disparities": disparities},
    )


@model
def cost_aggregation(disparities: int = 48) -> ModelDef:
    """The 3-D hourglass: a volume and the left image's features at its size / 2, / 4 and / 8, to a volume.

    Args:
        disparities: of the volume, a multiple of 8.

    Raises:
        Refused: ``bad-option``.
    """
    name = "cost-aggregation"
    Settings(name).whole("disparities", disparities, 8, MOST_CHANNELS, 8)
    shape = (1, GROUPS, disparities, "H", "W")
    return ModelDef(
        name=name,
        family="selective_igev",
        build=_cost_aggregation,
        deploy=_deployed_block,
        inputs=(
            Tensor("volume", shape, "group-wise likeness: batch, group, disparity, row, column", low=-2.0, high=2.0),
            Tensor("features08", (1, 64, "H/2", "W/2"), "features of the left image", low=-2.0, high=2.0),
            Tensor("features16", (1, 192, "H/4", "W/4"), "features of the left image", low=-2.0, high=2.0),
            Tensor("features32", (1, 160, "H/8", "W/8"), "features of the left image", low=-2.0, high=2.0),
        ),
        outputs=(Tensor("geometry", shape, "geometry encoding volume, same layout"),),
        dims=(Dim("H", 8, 16, 32, 8), Dim("W", 8, 32, 64, 8)),
        undetectable=UNUSED_NORM,
        source=IGEV,
        licence=BLOCK_LICENCE,
        options={"disparities": disparities},
    )


@model
def geometry_lookup(disparities: int = 48) -> ModelDef:
    """The combined geometry encoding volume read around a disparity: ``features (1, 162, H, W)``.

    Args:
        disparities: of the volume, an even number.

    Raises:
        Refused: ``bad-option``.
    """
    name = "geometry-lookup"
    Settings(name).whole("disparities", disparities, 2, MOST_CHANNELS, 2)
    return ModelDef(
        name=name,
        family="selective_igev",
        build=_geometry_lookup,
        inputs=(
            _block("geometry", GROUPS, "geometry encoding volume", disparities),
            Tensor("correlation", (1, "W", "H", "W"), "each right column with each left pixel", low=-4.0, high=4.0),
            Tensor("disparity", (1, 1, "H", "W"), "pixels", low=-16.0, high=float(disparities + 16)),
        ),
        outputs=(Tensor("features", (1, LOOKED_UP, "H", "W"), "two levels of 8 x 9 geometry and 9 correlation"),),
        dims=(Dim("H", 2, 16, 48), Dim("W", 2, 32, 96, 2)),
        source=IGEV,
        licence=BLOCK_LICENCE,
        options={"disparities": disparities},
    )


@model
def superpixel_upsample() -> ModelDef:
    """A disparity at stride 4 to full resolution, as mixtures of its neighbours: ``disparity (1, 1, 4H, 4W)``."""
    return ModelDef(
        name="superpixel-upsample",
        family="selective_igev",
        build=_superpixel_upsample,
        deploy=_deployed_block,
        inputs=(
            Tensor("mask_features", (1, 32, "H", "W"), "what the last iteration says of superpixels", low=0.0),
            Tensor("stem", (1, 32, "H*2", "W*2"), "features of the left image at stride 2", low=0.0, high=4.0),
            Tensor("disparity_low", (1, 1, "H", "W"), "pixels at stride 4", low=0.0, high=48.0),
        ),
        outputs=(Tensor("disparity", (1, 1, "H*4", "W*4"), "pixels of the image"),),
        dims=(Dim("H", 2, 16, 48), Dim("W", 2, 32, 96)),
        source=IGEV,
        licence=BLOCK_LICENCE,
    )


# ---------------------------------------------------------------------------------------------------- helpers


def _block(name: str, channels: int, meaning: str, *between: int) -> Tensor:
    return Tensor(name, (1, channels, *between, "H", "W"), meaning, low=-4.0, high=4.0)


def _network(max_disparity: int, iterations: int = 8, attention_map: bool = False) -> nn.Module:
    from .network import SelectiveIGEV

    return SelectiveIGEV(max_disparity, iterations, attention_map)


def _deployed(network: nn.Module) -> nn.Module:
    from .deploy import deploy_network

    return deploy_network(network)  # type: ignore[arg-type]


def _graph(name: str, deployed: nn.Module) -> nn.Module:
    from . import deploy

    graph: nn.Module = getattr(deploy, name)(deployed)
    return graph


def _deployed_block(block: nn.Module) -> nn.Module:
    from .deploy import deploy_block

    return deploy_block(block)


def _group_wise_correlation(disparities: int, groups: int) -> nn.Module:
    from .volume import GroupWiseCorrelation

    return GroupWiseCorrelation(disparities, groups)


def _cost_aggregation() -> nn.Module:
    from .aggregation import CostAggregation

    return CostAggregation()


def _geometry_lookup() -> nn.Module:
    from .volume import GeometryLookup

    return GeometryLookup()


def _superpixel_upsample() -> nn.Module:
    from .upsample import SuperpixelUpsample

    return SuperpixelUpsample()
