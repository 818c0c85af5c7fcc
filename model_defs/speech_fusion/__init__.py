"""The document's fusion strategies for speech enhancement as blocks of their own, and its decoder, repaired.

None of this is GTCRN's: GTCRN adds at all five of its skips and does nothing else (Rong et al., ICASSP 2024). The
document's quality figures for these strategies have no source and are not repeated here; parameters, operations and
latencies are what can be computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from exporter.errors import Refused
from exporter.spec import Dim, ModelDef, Tensor, model

if TYPE_CHECKING:
    from torch import nn

SOURCE = "the document's fusion strategies; not part of GTCRN"
LICENCE = "Apache-2.0"
BANDS = 33
FRAMES = Dim("T", min=1, opt=63, max=1000)
REACH = {"low": -4.0, "high": 4.0}
STRATEGIES = ("none", "concat", "add", "attention", "gated", "hybrid")
LEVELS = ("shallow", "middle", "deep")


def strategies() -> Mapping[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]]:
    """The document's decoder with each of its strategies, for a table of what they cost.

    Returns:
        By the strategy's name: the module, and the shapes of its inputs at 63 frames (1 s).
    """
    from .skips import FusionDecoder

    sizes = {"T": 63}
    return {
        name: (FusionDecoder(name), tuple(tensor.sized(sizes) for tensor in fusion_decoder(name).inputs))
        for name in STRATEGIES
    }


@model
def fusion_concat(channels: int = 16) -> ModelDef:
    """The document's, not GTCRN's: ``[encoder, decoder]`` along the channels."""
    return _pair("fusion-concat", channels, partial(_strategy, "concat", channels), wider=2)


@model
def fusion_add(channels: int = 16) -> ModelDef:
    """The document's, and the one that GTCRN uses: ``encoder + decoder``."""
    return _pair("fusion-add", channels, partial(_strategy, "add", channels))


@model
def fusion_attention(channels: int = 16) -> ModelDef:
    """The document's, not GTCRN's: ``a * encoder + (1 - a) * decoder``, one weight per frame and band."""
    return _pair("fusion-attention", channels, partial(_strategy, "attention", channels))


@model
def fusion_gated(channels: int = 16) -> ModelDef:
    """The document's gated selection, not GTCRN's: as attention, with a gate for every channel."""
    return _pair("fusion-gated", channels, partial(_strategy, "gated", channels))


@model
def fusion_aligned(channels: int = 16, bands: int = 65) -> ModelDef:
    """The document's feature alignment, not GTCRN's: the encoder's bands are resampled, its frames never.

    Args:
        channels: channels of both feature maps.
        bands: bands of the encoder's; the decoder has 33.
    """
    if not isinstance(bands, int) or bands < 1:
        raise _bad("fusion-aligned", "bands", bands, "it is a positive whole number")
    return _pair("fusion-aligned", channels, partial(_aligned, bands), bands=bands, bands_option=True)


@model
def fusion_hybrid(level: str = "middle", channels: int = 16) -> ModelDef:
    """The document's hybrid, not GTCRN's: concatenation where shallow, attention in the middle, addition where deep.

    Args:
        level: ``shallow``, ``middle`` or ``deep``.
        channels: channels of both feature maps.
    """
    if level not in LEVELS:
        raise _bad("fusion-hybrid", "level", level, f"it is one of {', '.join(LEVELS)}")
    wider = 2 if level == "shallow" else 1
    return _pair("fusion-hybrid", channels, partial(_hybrid, level, channels), wider=wider, level=level)


@model
def dense_skip(channels: int = 16) -> ModelDef:
    """The document's dense skips, not GTCRN's: three layers down, three up, features handed over and added."""
    _whole("dense-skip", channels)
    shape = (1, channels, "T", 129)
    return _single("dense-skip", partial(_dense, channels), shape, shape, channels)


@model
def multiscale_preservation(channels: int = 16) -> ModelDef:
    """The document's multi-scale preservation, not GTCRN's: ``[input, micro, meso, macro]`` along the channels."""
    _whole("multiscale-preservation", channels)
    shape, wide = (1, channels, "T", BANDS), (1, 4 * channels, "T", BANDS)
    return _single("multiscale-preservation", partial(_multiscale, channels), shape, wide, channels)


@model
def fusion_decoder(strategy: str = "concat") -> ModelDef:
    """The document's decoder, repaired, not GTCRN's: a bottleneck and three encoder features to ``y (1, 32, T, 129)``.

    Args:
        strategy: how features are fused: ``concat`` (the document's listing), ``add``, ``attention``, ``gated``,
            ``hybrid`` (by level) or ``none``.
    """
    if strategy not in STRATEGIES:
        raise _bad("fusion-decoder", "strategy", strategy, f"it is one of {', '.join(STRATEGIES)}")
    features = [
        Tensor("shallow", (1, 64, "T", 129), "the encoder's first feature", **REACH),
        Tensor("middle", (1, 128, "T", 65), "the encoder's second feature", **REACH),
        Tensor("deep", (1, 256, "T", 33), "the encoder's third feature", **REACH),
    ]
    return ModelDef(
        name="fusion-decoder",
        family="speech_fusion",
        build=partial(_decoder, strategy),
        inputs=(
            Tensor("bottleneck", (1, 256, "T", 17), "feature map: batch, channel, frame, band", **REACH),
            *(features if strategy != "none" else ()),
        ),
        outputs=(Tensor("y", (1, 32, "T", 129), "decoded feature map"),),
        dims=(Dim("T", min=1, opt=63, max=250),),
        source=SOURCE,
        licence=LICENCE,
        options={"strategy": strategy},
    )


def _pair(
    name: str,
    channels: int,
    build: partial[nn.Module],
    wider: int = 1,
    bands: int = BANDS,
    bands_option: bool = False,
    level: str | None = None,
) -> ModelDef:
    """A block of an encoder's and a decoder's feature map."""
    _whole(name, channels)
    own = {"bands": bands} if bands_option else {} if level is None else {"level": level}
    layout = "feature map: batch, channel, frame, band"
    return ModelDef(
        name=name,
        family="speech_fusion",
        build=build,
        inputs=(
            Tensor("encoder", (1, channels, "T", bands), f"the encoder's {layout}", **REACH),
            Tensor("decoder", (1, channels, "T", BANDS), f"the decoder's {layout}", **REACH),
        ),
        outputs=(Tensor("fused", (1, wider * channels, "T", BANDS), layout),),
        dims=(FRAMES,),
        source=SOURCE,
        licence=LICENCE,
        options={**own, "channels": channels},
    )


def _single(
    name: str, build: partial[nn.Module], shape: tuple[int | str, ...], given: tuple[int | str, ...], channels: int
) -> ModelDef:
    """A block of one feature map."""
    return ModelDef(
        name=name,
        family="speech_fusion",
        build=build,
        inputs=(Tensor("x", shape, "feature map: batch, channel, frame, band", **REACH),),
        outputs=(Tensor("y", given, "feature map, same layout"),),
        dims=(FRAMES,),
        source=SOURCE,
        licence=LICENCE,
        options={"channels": channels},
    )


def _whole(name: str, channels: int) -> None:
    if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
        raise _bad(name, "channels", channels, "it is a positive whole number")


def _bad(name: str, option: str, value: object, rule: str) -> Refused:
    return Refused(
        "bad-option",
        f"--set {option}={value} makes no {name}",
        where=f"model {name}, option {option}",
        why=rule,
        next=f"exporter models {name}",
    )


def _strategy(name: str, channels: int) -> nn.Module:
    from .blends import strategy

    return strategy(name, channels)


def _hybrid(level: str, channels: int) -> nn.Module:
    from .blends import LEVELS as BY_LEVEL
    from .blends import strategy

    return strategy(BY_LEVEL[level], channels)


def _aligned(bands: int) -> nn.Module:
    from .blends import Aligned

    return Aligned(bands, BANDS)


def _dense(channels: int) -> nn.Module:
    from .skips import DenseSkips

    return DenseSkips(channels)


def _multiscale(channels: int) -> nn.Module:
    from .skips import MultiscalePreservation

    return MultiscalePreservation(channels)


def _decoder(strategy: str) -> nn.Module:
    from .skips import FusionDecoder

    return FusionDecoder(strategy)
