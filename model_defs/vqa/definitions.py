"""What the definitions of this family share: tensors, samples, checks of options, and how modules are built. No torch
until a module is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.settings import Settings
from exporter.spec import Dim, HostStep, ModelDef, Sample, Tensor

from .config import SIZE, VITS, VQAConfig

if TYPE_CHECKING:
    from torch import nn

SOURCE = "the document's video quality model; backbones: github.com/huggingface/pytorch-image-models (Apache-2.0)"
LICENCE = "Apache-2.0"
BATCH = Dim("batch", 1, 1, 4)
# A network for every image: what a float64 reference can bear.
SMALL_BATCH = Dim("batch", 1, 1, 2)
# What layer normalisation leaves of a feature, and what follows it, rarely exceeds this.
REACH = 4.0
# The fewest pixels of a side that leave a pixel at 1/32.
SMALLEST_SIDE = 32


# Queries start near zero, so that they weigh all patches all but alike: a change of 1 % of that is below rounding.
FAINT_QUERIES = "query_tokens"


def extractor_definition(
    name: str,
    build: partial[nn.Module],
    size: int,
    feature_dim: int,
    options: dict[str, Any],
    undetectable: tuple[str, ...] = (),
) -> ModelDef:
    return ModelDef(
        name=name,
        family="vqa",
        build=build,
        inputs=(image("image", size),),
        outputs=(Tensor("features", ("batch", feature_dim), "features of the image"),),
        dims=(SMALL_BATCH,),
        before=picture("image", size),
        calibration=partial(other_photographs, size),
        undetectable=undetectable,
        source=SOURCE,
        licence=LICENCE,
        options=options,
    )


def block(name: str, build: partial[nn.Module], **parts: Any) -> ModelDef:
    return ModelDef(name=name, family="vqa", build=build, source=SOURCE, licence=LICENCE, **parts)


def of_vectors(
    name: str,
    build: partial[nn.Module],
    feature_dim: int,
    *parts: Tensor,
    options: dict[str, Any],
    sides: int = 2,
    undetectable: tuple[str, ...] = (),
) -> ModelDef:
    """A block that fuses vectors, and gives the weights it used."""
    inputs = [features(f"features_{side}", ("batch", feature_dim), f"side {side}") for side in range(1, sides + 1)]
    outputs = (fused(feature_dim), *parts)
    return block(
        name, build, inputs=tuple(inputs), outputs=outputs, dims=(BATCH,), undetectable=undetectable, options=options
    )


def temporal_block(name: str, kind: str, channels: int, frames: int, every: int = 1) -> ModelDef:
    settings, multiple = Settings(name), max(every, 2)
    settings.whole("channels", channels, least=4, multiple=4)
    settings.whole("frames", frames, least=multiple, multiple=multiple)
    shape = ("batch", frames, channels, 7, 7)
    return block(
        name,
        partial(built, "temporal", kind, channels),
        inputs=(features("clip", shape, "maps of a clip's frames: batch, frame, channel, row, column"),),
        outputs=(Tensor("maps", ("batch", frames // every, *shape[2:]), "maps that know their neighbours in time"),),
        dims=(BATCH,),
        options={"channels": channels, "frames": frames},
    )


def images_of(config: VQAConfig) -> Iterator[Tensor]:
    yield image("image", SIZE)
    if config.inputs == 2:
        yield image("second_image", SIZE)
    if config.frames is not None:
        shape = ("batch", config.frames, 3, SIZE, SIZE)
        yield Tensor("frames", shape, "the image's clip: batch, frame, RGB 0 to 1", low=0.0, high=1.0)


def outputs_of(config: VQAConfig) -> Iterator[Tensor]:
    """The outputs in the order of the dictionary that the network gives."""
    yield Tensor("quality_score", ("batch", 1), "the higher, the better")
    yield Tensor("fused_features", ("batch", config.feature_dim), "what the score is computed from")
    heads, tokens = config.num_heads, {name: 1 + _places(name) for name in config.backbones}
    first, second = (tokens[name] for name in config.backbones)
    asked = "of every head: the summary of branch {} over summary and places of branch {}"
    if config.fusion == "cross":
        yield Tensor("attention_weights", ("batch", heads, 1, second), asked.format(1, 2))
    elif config.fusion == "bidirectional":
        yield Tensor("attention_weights_1", ("batch", heads, 1, second), asked.format(1, 2))
        yield Tensor("attention_weights_2", ("batch", heads, 1, first), asked.format(2, 1))
    elif config.fusion == "self":
        yield Tensor("attention_weights", ("batch", heads, 2, 2), "of every head, asking by answering branch")
    elif config.fusion == "gated":
        yield Tensor("gate_weights", ("batch", 2), "of the branches, which sum to 1")
    elif config.fusion == "adaptive":
        yield Tensor("gate_weights", ("batch", config.num_experts), "of the experts, which sum to 1")
    elif config.fusion == "dynamic":
        yield Tensor("dynamic_weights", ("batch", 2), "of the branches, which sum to 1")
    elif config.fusion == "quality":
        yield from qualities("batch")


def _places(backbone: str) -> int:
    """Places of a backbone's last map at 224 pixels."""
    return (SIZE // (16 if backbone in VITS else 32)) ** 2


def qualities(batch: str) -> Iterator[Tensor]:
    yield Tensor("qualities", (batch, 2), "of both sides, 0 to 1")
    yield Tensor("uncertainties", (batch, 2), "of both sides, 0 to 1")
    yield Tensor("quality_weights", (batch, 2), "of both sides, which sum to 1")


def image(name: str, size: int) -> Tensor:
    return Tensor(name, ("batch", 3, size, size), "RGB image, 0 to 1", low=0.0, high=1.0)


def features(name: str, shape: tuple[int | str, ...], meaning: str) -> Tensor:
    return Tensor(name, shape, meaning, low=-REACH, high=REACH)


def fused(feature_dim: int) -> Tensor:
    return Tensor("fused", ("batch", feature_dim), "fused features")


def picture(name: str, size: int = SIZE) -> tuple[HostStep, ...]:
    """A picture file to an input of the graph."""
    return (
        HostStep("image", {"to": name, "high": 1.0}),
        HostStep("resize", {"of": name, "height": size, "width": size}),
    )


# Distortions of the photographs that are judged on, and of those that scales of int8 are taken from.
LEVELS = (("blur", 0.3), ("noise", 0.6), ("jpeg", 0.8), ("contrast", 1.0))
JUDGED = range(2)


def distorted_photographs() -> Iterator[Sample]:
    """Two photographs, whole and distorted at known levels; the score is what is left of 1. None without pictures."""
    from .._photographs import count

    return _distorted(range(min(count(), JUDGED.stop)), SIZE)


def other_photographs(size: int = SIZE) -> Iterator[Sample]:
    """All other photographs, in the same way; none without pictures."""
    from .._photographs import count

    return _distorted(range(JUDGED.stop, count()), size)


def _distorted(which: Iterable[int], size: int) -> Iterator[Sample]:
    from .._photographs import distorted, photograph

    for index in which:
        clean = photograph(index, size, size)
        for kind, level in (("blur", 0.0), *LEVELS[index % 2 :: 2]):
            given = distorted(clean, kind, level, seed=index)
            image = given.transpose(2, 0, 1)[np.newaxis].astype(np.float32) / 255
            name = f"photograph-{index}-{kind if level else 'clean'}"
            yield Sample(name, {"image": image}, {"score": np.array([1.0 - level], np.float32)})


# ------------------------------------------------------------------------------------------------------------- options


def sides_of(settings: Settings, scales: object, size: int) -> tuple[int, ...]:
    """Pixels of a side of every scale, out of ``96,160,224``.

    Raises:
        Refused: ``bad-option`` unless they rise, from what a network takes to the image's own size.
    """
    sides = settings.wholes("scales", scales, least=2)
    if list(sides) != sorted(set(sides)) or sides[0] < SMALLEST_SIDE or sides[-1] > size:
        rule = f"they rise from {SMALLEST_SIDE} at least to {size}, the image's size, at most"
        raise settings.refusal("scales", scales, rule)
    return sides


# ------------------------------------------------------------------------------------------------------------- modules


def efficientnet(backbone: str, feature_dim: int, gate: bool) -> nn.Module:
    from .extractors import EfficientNetExtractor

    return EfficientNetExtractor(backbone, feature_dim, gate=gate)


def vit(backbone: str, feature_dim: int, heads: int) -> nn.Module:
    from .extractors import ViTExtractor

    return ViTExtractor(backbone, feature_dim, heads)


def convnext(backbone: str, feature_dim: int) -> nn.Module:
    from .extractors import ConvNeXtExtractor

    return ConvNeXtExtractor(backbone, feature_dim)


def multi_scale(backbone: str, scales: tuple[int, ...], size: int, feature_dim: int) -> nn.Module:
    from .extractors import MultiScaleExtractor, extractor

    return MultiScaleExtractor(extractor(backbone, feature_dim, 0.1, 0.0), size, scales, feature_dim)


def built(file: str, kind: str, *arguments: Any) -> nn.Module:
    """A block, by the file of this package and the name in it of its class."""
    module: nn.Module = getattr(importlib.import_module(f".{file}", __package__), kind)(*arguments)
    return module


def unified(config: VQAConfig) -> nn.Module:
    from .network import VQA, VQAOfClip

    return (VQAOfClip if config.inputs == 1 and config.frames is not None else VQA)(config)
