"""The document's fusion strategies for speech enhancement as blocks of their own, and its decoder, repaired.

None of this is GTCRN's but the addition, ``fusion-add``: GTCRN adds at all five of its skips and does nothing else
(Rong et al., ICASSP 2024). The document's quality figures for these strategies have no source and are not repeated
here; parameters, operations and latencies are what can be computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from exporter.settings import Settings
from exporter.spec import Dim, ModelDef, Tensor, model

if TYPE_CHECKING:
    from torch import nn

SOURCE = "the document's fusion strategies; not part of GTCRN"
ADDITION = "the document's fusion strategies; GTCRN's own five skips are this plain addition"
LICENCE = "Apache-2.0"
# Of the decoder's map; and of the widest spectrum, a transform of 512 samples.
BANDS, MOST_BANDS = 33, 257
FRAMES = Dim("T", min=1, opt=63, max=1000)
REACH = {"low": -4.0, "high": 4.0}
STRATEGIES = ("none", "concat", "add", "attention", "gated", "hybrid")
# The document's hybrid: which strategy serves which level.
BY_LEVEL = {"shallow": "concat", "middle": "attention", "deep": "add"}
# Four times the widest of the document's maps; at most frames and bands one map of so many channels is 0.5 GB.
WIDEST = 1024


@model
def fusion_concat(channels: int = 16) -> ModelDef:
    """The document's, not GTCRN's: ``[encoder, decoder]`` along the channels.

    Args:
        channels: channels of both feature maps, to 1024.

    Raises:
        Refused: ``bad-option``.
    """
    return _pair(
        "fusion-concat", {"channels": channels}, partial(_made, ".blends", "strategy", "concat", channels), wider=2
    )


@model
def fusion_add(channels: int = 16) -> ModelDef:
    """The document's, and GTCRN's own at its five skips: ``encoder + decoder``.

    Args:
        channels: channels of both feature maps, to 1024.

    Raises:
        Refused: ``bad-option``.
    """
    build = partial(_made, ".blends", "strategy", "add", channels)
    return _pair("fusion-add", {"channels": channels}, build, source=ADDITION)


@model
def fusion_attention(channels: int = 16) -> ModelDef:
    """The document's, not GTCRN's: ``a * encoder + (1 - a) * decoder``, one weight per frame and band.

    Args:
        channels: channels of both feature maps, to 1024.

    Raises:
        Refused: ``bad-option``.
    """
    return _pair(
        "fusion-attention", {"channels": channels}, partial(_made, ".blends", "strategy", "attention", channels)
    )


@model
def fusion_gated(channels: int = 16) -> ModelDef:
    """The document's gated selection, not GTCRN's: as attention, with a gate for every channel.

    Args:
        channels: channels of both feature maps, to 1024.

    Raises:
        Refused: ``bad-option``.
    """
    build = partial(_made, ".blends", "strategy", "gated", channels)
    return _pair("fusion-gated", {"channels": channels}, build)


@model
def fusion_aligned(channels: int = 16, bands: int = 65) -> ModelDef:
    """The document's feature alignment, not GTCRN's: the encoder's bands are resampled, its frames never.

    Args:
        channels: channels of both feature maps, to 1024.
        bands: bands of the encoder's, to 257, those of GTCRN's spectrum; the decoder has 33.

    Raises:
        Refused: ``bad-option``.
    """
    Settings("fusion-aligned").whole("bands", bands, most=MOST_BANDS)
    options = {"bands": bands, "channels": channels}
    return _pair("fusion-aligned", options, partial(_made, ".blends", "Aligned", bands, BANDS), bands=bands)


@model
def fusion_hybrid(level: str = "middle", channels: int = 16) -> ModelDef:
    """The document's hybrid, not GTCRN's: concatenation where shallow, attention in the middle, addition where deep.

    Args:
        level: ``shallow``, ``middle`` or ``deep``.
        channels: channels of both feature maps, to 1024.

    Raises:
        Refused: ``bad-option``.
    """
    Settings("fusion-hybrid").one_of("level", level, BY_LEVEL)
    options = {"level": level, "channels": channels}
    build = partial(_made, ".blends", "strategy", BY_LEVEL[level], channels)
    return _pair("fusion-hybrid", options, build, wider=2 if BY_LEVEL[level] == "concat" else 1)


@model
def dense_skip(channels: int = 16) -> ModelDef:
    """The document's dense skips, not GTCRN's: three layers down, three up, features handed over and added.

    Args:
        channels: channels of the feature map, to 1024.

    Raises:
        Refused: ``bad-option``.
    """
    return _single("dense-skip", "DenseSkips", channels, bands=129)


@model
def multiscale_preservation(channels: int = 16) -> ModelDef:
    """The document's multi-scale preservation, not GTCRN's: ``[input, micro, meso, macro]`` along the channels.

    Args:
        channels: channels of the feature map, to 1024.

    Raises:
        Refused: ``bad-option``.
    """
    return _single("multiscale-preservation", "MultiscalePreservation", channels, bands=BANDS, wider=4)


@model
def fusion_decoder(strategy: str = "concat") -> ModelDef:
    """The document's decoder, repaired, not GTCRN's: a bottleneck and three encoder features to ``y (1, 32, T, 129)``.

    Args:
        strategy: how features are fused: ``concat`` (the document's listing), ``add``, ``attention``, ``gated``,
            ``hybrid`` (by level) or ``none``.

    Raises:
        Refused: ``bad-option``.
    """
    Settings("fusion-decoder").one_of("strategy", strategy, STRATEGIES)
    features = [
        Tensor("shallow", (1, 64, "T", 129), "the encoder's first feature", **REACH),
        Tensor("middle", (1, 128, "T", 65), "the encoder's second feature", **REACH),
        Tensor("deep", (1, 256, "T", 33), "the encoder's third feature", **REACH),
    ]
    return ModelDef(
        name="fusion-decoder",
        family="speech_fusion",
        build=partial(_made, ".skips", "FusionDecoder", strategy),
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
    options: Mapping[str, Any],
    build: partial[nn.Module],
    wider: int = 1,
    bands: int = BANDS,
    source: str = SOURCE,
) -> ModelDef:
    """A block of an encoder's and a decoder's feature map, of ``options["channels"]`` channels each."""
    channels = options["channels"]
    Settings(name).whole("channels", channels, most=WIDEST)
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
        source=source,
        licence=LICENCE,
        options=options,
    )


def _single(name: str, kind: str, channels: int, bands: int, wider: int = 1) -> ModelDef:
    """A block of one feature map."""
    Settings(name).whole("channels", channels, most=WIDEST)
    return ModelDef(
        name=name,
        family="speech_fusion",
        build=partial(_made, ".skips", kind, channels),
        inputs=(Tensor("x", (1, channels, "T", bands), "feature map: batch, channel, frame, band", **REACH),),
        outputs=(Tensor("y", (1, wider * channels, "T", bands), "feature map, same layout"),),
        dims=(FRAMES,),
        source=SOURCE,
        licence=LICENCE,
        options={"channels": channels},
    )


def _made(module: str, name: str, *arguments: Any) -> nn.Module:
    """What a class or function of a module gives; the module, and PyTorch with it, is imported only now."""
    made: nn.Module = getattr(import_module(module, __package__), name)(*arguments)
    return made
