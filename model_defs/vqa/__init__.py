"""Video quality by the fusion of two networks: the document's extractors, its fusions, and its unified model.

There is no publication and there are no published weights: the document is the specification, after repair. The
backbones are timm's. Training starts from published weights of theirs with ``python -m model_defs.vqa.train
--backbone-weights FILE``, and code gives them to ``extractors.Backbone.load``. Images are RGB, 0 to 1; every branch
normalises them itself, as its own published weights want it.
"""

from __future__ import annotations

from functools import partial

from exporter.budget import FAIR, Budget
from exporter.settings import Settings
from exporter.spec import Dim, HostStep, ModelDef, Tensor, model

from .config import (
    CONVNEXTS,
    EFFICIENTNETS,
    OF_STAGES,
    OPTIONS,
    SIZE,
    SLOWNESS,
    UNIT,
    VITS,
    VQAConfig,
    refuse_uneven_heads,
)
from .definitions import (
    BATCH,
    FAINT_QUERIES,
    LICENCE,
    SMALL_BATCH,
    SMALLEST_SIDE,
    SOURCE,
    block,
    built,
    convnext,
    distorted_photographs,
    efficientnet,
    extractor_definition,
    features,
    fused,
    images_of,
    multi_scale,
    of_vectors,
    other_photographs,
    outputs_of,
    picture,
    qualities,
    sides_of,
    temporal_block,
    unified,
    vit,
)


@model
def extractor_efficientnet(
    backbone: str = "efficientnet_b0", feature_dim: int = 512, size: int = SIZE, gate: bool = True
) -> ModelDef:
    """EfficientNet branch: ``image (batch, 3, size, size)`` to ``features (batch, feature_dim)``.

    Args:
        backbone: ``efficientnet_b0`` to ``_b7``; with ``tf_`` in front where published weights are wanted and the
            plain one has none (``tf_efficientnet_b7``). Or ``test_efficientnet``, timm's smallest (99,196 parameters),
            which two cores train in minutes.
        feature_dim: width of the features, a multiple of 16.
        size: pixels of a side.
        gate: whether features are weighed by squeeze and excitation.

    Raises:
        Refused: ``bad-option``.
    """
    settings = Settings("extractor-efficientnet")
    settings.one_of("backbone", backbone, EFFICIENTNETS)
    settings.whole("feature_dim", feature_dim, least=UNIT, multiple=UNIT)
    settings.whole("size", size, least=SMALLEST_SIDE)
    settings.flag("gate", gate)
    options = {"backbone": backbone, "feature_dim": feature_dim, "size": size, "gate": gate}
    return extractor_definition(
        settings.model, partial(efficientnet, backbone, feature_dim, gate), size, feature_dim, options
    )


@model
def extractor_vit(backbone: str = "vit_tiny_patch16_224", feature_dim: int = 512, heads: int = 8) -> ModelDef:
    """ViT branch: ``image (batch, 3, 224, 224)`` to ``features (batch, feature_dim)``; it takes no other size.

    Args:
        backbone: ``vit_tiny_patch16_224``, ``_small_``, ``_base_`` or ``_large_``.
        feature_dim: width of the features.
        heads: of the attention that pools the patches; they divide ``feature_dim``.

    Raises:
        Refused: ``bad-option``.
    """
    settings = Settings("extractor-vit")
    settings.one_of("backbone", backbone, VITS)
    settings.whole("feature_dim", feature_dim)
    refuse_uneven_heads(settings, "heads", heads, feature_dim)
    options = {"backbone": backbone, "feature_dim": feature_dim, "heads": heads}
    return extractor_definition(
        settings.model,
        partial(vit, backbone, feature_dim, heads),
        SIZE,
        feature_dim,
        options,
        undetectable=(FAINT_QUERIES,),
    )


@model
def extractor_convnext(backbone: str = "convnext_tiny", feature_dim: int = 512, size: int = SIZE) -> ModelDef:
    """ConvNeXt branch: ``image (batch, 3, size, size)`` to ``features (batch, feature_dim)``.

    Args:
        backbone: ``convnext_tiny``, ``_small``, ``_base`` or ``_large``.
        feature_dim: width of the features.
        size: pixels of a side.

    Raises:
        Refused: ``bad-option``.
    """
    settings = Settings("extractor-convnext")
    settings.one_of("backbone", backbone, CONVNEXTS)
    settings.whole("feature_dim", feature_dim)
    settings.whole("size", size, least=SMALLEST_SIDE)
    options = {"backbone": backbone, "feature_dim": feature_dim, "size": size}
    return extractor_definition(settings.model, partial(convnext, backbone, feature_dim), size, feature_dim, options)


@model
def multi_scale_extractor(
    backbone: str = "efficientnet_b0", scales: str = "96,160,224", size: int = SIZE, feature_dim: int = 512
) -> ModelDef:
    """One image at several scales through one branch: ``image (batch, 3, size, size)`` to ``features``.

    Args:
        backbone: of EfficientNet or ConvNeXt; a ViT takes one size.
        scales: pixels of a side, from small to large. The document's are ``224,384,512``; with them, ``size=512``.
        size: pixels of a side of the image; no scale is larger.
        feature_dim: width of the features, a multiple of 16.

    Raises:
        Refused: ``bad-option``.
    """
    settings = Settings("multi-scale-extractor")
    settings.one_of("backbone", backbone, (*EFFICIENTNETS, *CONVNEXTS))
    settings.whole("feature_dim", feature_dim, least=UNIT, multiple=UNIT)
    settings.whole("size", size, least=SMALLEST_SIDE)
    sides = sides_of(settings, scales, size)
    options = {"backbone": backbone, "scales": ",".join(map(str, sides)), "size": size, "feature_dim": feature_dim}
    return extractor_definition(
        settings.model, partial(multi_scale, backbone, sides, size, feature_dim), size, feature_dim, options
    )


@model
def cross_modal_attention(feature_dim: int = 512, heads: int = 8) -> ModelDef:
    """Tokens of one side ask those of the other: ``attended (batch, N, D)`` and the weights of every head."""
    settings = Settings("cross-modal-attention")
    settings.whole("feature_dim", feature_dim)
    refuse_uneven_heads(settings, "heads", heads, feature_dim)
    return block(
        settings.model,
        partial(built, "attention", "CrossModalAttention", feature_dim, heads),
        inputs=(
            features("query", ("batch", "N", feature_dim), "tokens that ask: batch, token, feature"),
            features("tokens", ("batch", "M", feature_dim), "tokens that answer: batch, token, feature"),
        ),
        outputs=(
            Tensor("attended", ("batch", "N", feature_dim), "what each asking token learned"),
            Tensor("attention_weights", ("batch", heads, "N", "M"), "of every head, asking by answering token"),
        ),
        # Of a single answering token every weight is 1.
        dims=(BATCH, Dim("N", 1, 49, 196), Dim("M", 2, 50, 197)),
        # The same number added to all scores of a query: the softmax does not see it.
        undetectable=("k_proj.bias",),
        options={"feature_dim": feature_dim, "heads": heads},
    )


@model
def bidirectional_attention(feature_dim: int = 512, heads: int = 8) -> ModelDef:
    """The first token of either side asks all of the other's: ``fused (batch, D)`` and the weights both ways."""
    settings = Settings("bidirectional-attention")
    settings.whole("feature_dim", feature_dim)
    refuse_uneven_heads(settings, "heads", heads, feature_dim)
    sides = [
        features(f"tokens_{side}", ("batch", count, feature_dim), "batch, token, feature; the first is the summary")
        for side, count in ((1, "N"), (2, "M"))
    ]
    return block(
        settings.model,
        partial(built, "attention", "BiDirectionalCrossAttention", feature_dim, heads),
        inputs=tuple(sides),
        outputs=(
            fused(feature_dim),
            Tensor("attention_weights_1", ("batch", heads, 1, "M"), "of the first summary over the second's tokens"),
            Tensor("attention_weights_2", ("batch", heads, 1, "N"), "of the second summary over the first's tokens"),
        ),
        dims=(BATCH, Dim("N", 2, 50, 197), Dim("M", 2, 197, 200)),
        undetectable=("attention_1_to_2.k_proj.bias", "attention_2_to_1.k_proj.bias"),  # as above
        options={"feature_dim": feature_dim, "heads": heads},
    )


@model
def self_attention_fusion(feature_dim: int = 512, heads: int = 8) -> ModelDef:
    """Two vectors attend to one another: ``fused (batch, D)`` and the weights of every head."""
    settings = Settings("self-attention-fusion")
    settings.whole("feature_dim", feature_dim)
    refuse_uneven_heads(settings, "heads", heads, feature_dim)
    weights = Tensor("attention_weights", ("batch", heads, 2, 2), "of every head, asking by answering side")
    build = partial(built, "attention", "SelfAttentionFusion", feature_dim, heads)
    return of_vectors(settings.model, build, feature_dim, weights, options={"feature_dim": feature_dim, "heads": heads})


@model
def gated_fusion(feature_dim: int = 512, hidden: int = 256) -> ModelDef:
    """A gate weighs two vectors against one another: ``fused (batch, D)`` and the weights."""
    settings = Settings("gated-fusion")
    settings.whole("feature_dim", feature_dim)
    settings.whole("hidden", hidden, least=2, multiple=2)
    weights = Tensor("gate_weights", ("batch", 2), "of both sides, which sum to 1")
    build = partial(built, "fusion", "GatedFusion", feature_dim, hidden)
    return of_vectors(
        settings.model, build, feature_dim, weights, options={"feature_dim": feature_dim, "hidden": hidden}
    )


@model
def adaptive_gated_fusion(feature_dim: int = 512, experts: int = 4) -> ModelDef:
    """A gate mixes the answers of several networks: ``fused (batch, D)`` and the weights."""
    settings = Settings("adaptive-gated-fusion")
    settings.whole("feature_dim", feature_dim)
    settings.whole("experts", experts, least=2)
    return of_vectors(
        settings.model,
        partial(built, "fusion", "AdaptiveGatedFusion", feature_dim, experts),
        feature_dim,
        Tensor("gate_weights", ("batch", experts), "of the networks, which sum to 1"),
        # The noise of the gate is for training alone.
        undetectable=("noise_gate.weight", "noise_gate.bias"),
        options={"feature_dim": feature_dim, "experts": experts},
    )


@model
def hierarchical_fusion(feature_dim: int = 512, widths: str = "512,1024,2048") -> ModelDef:
    """Vectors of several levels, from the lowest up: ``fused (batch, D)``."""
    settings = Settings("hierarchical-fusion")
    settings.whole("feature_dim", feature_dim)
    levels = settings.wholes("widths", widths, least=2)
    return block(
        settings.model,
        partial(built, "pyramid", "HierarchicalFeatureFusion", levels, feature_dim),
        inputs=tuple(
            features(f"level_{index}", ("batch", width), f"features of level {index} of {len(levels)}, 1 the lowest")
            for index, width in enumerate(levels, start=1)
        ),
        outputs=(fused(feature_dim),),
        dims=(BATCH,),
        options={"feature_dim": feature_dim, "widths": ",".join(map(str, levels))},
    )


@model
def pyramid_fusion(feature_dim: int = 512, widths: str = "256,512,1024,2048") -> ModelDef:
    """Maps of several levels, each half the size of the one before: ``fused (batch, D)``."""
    settings = Settings("pyramid-fusion")
    settings.whole("feature_dim", feature_dim)
    levels = settings.wholes("widths", widths, least=2)
    factors = [2**index for index in range(len(levels))]
    entries = [("H", "W") if factor == 1 else (f"H/{factor}", f"W/{factor}") for factor in factors]
    coarsest = factors[-1]
    return block(
        settings.model,
        partial(built, "pyramid", "PyramidFeatureFusion", levels, feature_dim),
        inputs=tuple(
            features(f"map_{index}", (1, width, *entry), f"map of level {index} of {len(levels)}, 1 the finest")
            for index, (width, entry) in enumerate(zip(levels, entries, strict=True), start=1)
        ),
        outputs=(Tensor("fused", (1, feature_dim), "fused features"),),
        dims=tuple(Dim(axis, coarsest, 2 * coarsest, 4 * coarsest, coarsest) for axis in ("H", "W")),
        options={"feature_dim": feature_dim, "widths": ",".join(map(str, levels))},
    )


@model
def dynamic_weights(feature_dim: int = 512, context: int = 128, sides: int = 2) -> ModelDef:
    """A context of all vectors gives the weight of each: ``fused (batch, D)`` and the weights."""
    settings = Settings("dynamic-weights")
    settings.whole("feature_dim", feature_dim)
    settings.whole("context", context, least=2, multiple=2)
    settings.whole("sides", sides, least=2)
    return of_vectors(
        settings.model,
        partial(built, "fusion", "DynamicWeightNetwork", feature_dim, context, sides),
        feature_dim,
        Tensor("dynamic_weights", ("batch", sides), "of the vectors, which sum to 1"),
        sides=sides,
        options={"feature_dim": feature_dim, "context": context, "sides": sides},
    )


@model
def quality_aware_fusion(feature_dim: int = 512, hidden: int = 64) -> ModelDef:
    """Two vectors are weighed by their own quality and certainty: ``fused (batch, D)`` and all three."""
    settings = Settings("quality-aware-fusion")
    settings.whole("feature_dim", feature_dim)
    settings.whole("hidden", hidden)
    build = partial(built, "fusion", "QualityAwareFusion", feature_dim, hidden)
    options = {"feature_dim": feature_dim, "hidden": hidden}
    return of_vectors(settings.model, build, feature_dim, *qualities(BATCH.name), options=options)


@model
def temporal_tsm(channels: int = 128, frames: int = 8) -> ModelDef:
    """Temporal shift (TSM) in a residual branch: ``clip (batch, frames, channels, 7, 7)`` to the same shape."""
    return temporal_block("temporal-tsm", "TemporalShift", channels, frames)


@model
def temporal_tea(channels: int = 128, frames: int = 8) -> ModelDef:
    """Temporal excitation and aggregation (TEA): ``clip (batch, frames, channels, 7, 7)`` to the same shape."""
    return temporal_block("temporal-tea", "TEA", channels, frames)


@model
def temporal_slowfast(channels: int = 128, frames: int = 8) -> ModelDef:
    """Slow and fast pathway (SlowFast): ``clip (batch, frames, channels, 7, 7)`` to a quarter of the frames."""
    return temporal_block("temporal-slowfast", "SlowFast", channels, frames, every=SLOWNESS)


@model
def vqa(
    fusion: str = "bidirectional",
    backbone: str = "efficientnet_b0",
    second_backbone: str = "vit_tiny_patch16_224",
    inputs: int = 1,
    temporal: str = "none",
    frames: int | None = None,
    feature_dim: int = 512,
    num_heads: int | None = None,
    num_experts: int | None = None,
    gate_hidden_dim: int | None = None,
    context_dim: int | None = None,
    quality_dim: int | None = None,
) -> ModelDef:
    """The unified model: ``image (batch, 3, 224, 224)`` to ``quality_score (batch, 1)`` and what the fusion gives.

    A picture file is resized to a square of 224 pixels, which alters its blur and its noise: the score is that of the
    picture as it is then.

    Args:
        fusion: ``cross``, ``bidirectional``, ``self``, ``gated``, ``adaptive``, ``hierarchical``, ``pyramid``,
            ``dynamic`` or ``quality``.
        backbone: the first branch's: any of the extractors', with ``test_efficientnet``, timm's smallest.
        second_backbone: the second branch's.
        inputs: 1, both branches see ``image``; 2, the second sees ``second_image``.
        temporal: ``none``, ``tsm``, ``tea`` or ``slowfast``: there is an input ``frames``, the image's clip.
        frames: how many frames the clip has (8).
        feature_dim: width of all that is fused, a multiple of 16.
        num_heads: of every attention outside the backbones (8).
        num_experts: of ``adaptive`` (4).
        gate_hidden_dim: of ``gated`` (256).
        context_dim: of ``dynamic`` (128).
        quality_dim: of ``quality`` (64).

    Raises:
        Refused: ``bad-option``, for an option that nothing reads as well.
    """
    config = VQAConfig(
        fusion=fusion,
        backbone=backbone,
        second_backbone=second_backbone,
        inputs=inputs,
        temporal=temporal,
        frames=frames,
        feature_dim=feature_dim,
        num_heads=num_heads,
        num_experts=num_experts,
        gate_hidden_dim=gate_hidden_dim,
        context_dim=context_dim,
        quality_dim=quality_dim,
    )
    single = config.inputs == 1 and config.frames is None
    return ModelDef(
        name="vqa",
        family="vqa",
        build=partial(unified, config),
        inputs=tuple(images_of(config)),
        outputs=tuple(outputs_of(config)),
        dims=(SMALL_BATCH,),
        before=picture("image") + (picture("second_image") if config.inputs == 2 else ()),
        after=(HostStep("score", {"from": "quality_score"}),),
        metrics=("srcc", "plcc"),
        samples=distorted_photographs if single else None,
        calibration=other_photographs if single else None,
        budget=Budget(decibels=FAIR, losses={"srcc": 0.01}),
        undetectable=_undetectable(config),
        source=SOURCE,
        licence=LICENCE,
        options={name: getattr(config, name) for name in OPTIONS},
    )


def _undetectable(config: VQAConfig) -> tuple[str, ...]:
    """Weights that no output shows."""
    # The softmax does not see the bias of a key; the noise of an adaptive gate is for training alone.
    of_fusion = {
        "cross": ("fusion.k_proj.bias",),
        "bidirectional": ("fusion.attention_1_to_2.k_proj.bias", "fusion.attention_2_to_1.k_proj.bias"),
        "adaptive": ("fusion.noise_gate.weight", "fusion.noise_gate.bias"),
    }.get(config.fusion, ())
    if config.fusion in OF_STAGES:
        return of_fusion
    vits = [side for side, backbone in enumerate(config.backbones, start=1) if backbone in VITS]
    return (*of_fusion, *(f"branch_{side}.{FAINT_QUERIES}" for side in vits))
