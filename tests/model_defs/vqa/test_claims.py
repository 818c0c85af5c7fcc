"""The document's numbers, computed: what is true of the backbones, and what is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporter import registry
from model_defs._timm import library
from model_defs.vqa.attention import BiDirectionalCrossAttention, CrossModalAttention, SelfAttentionFusion
from model_defs.vqa.config import BACKBONES, CONVNEXTS, EFFICIENTNETS, SMALLEST_BACKBONE, VITS
from model_defs.vqa.extractors import Backbone
from model_defs.vqa.fusion import AdaptiveGatedFusion, DynamicWeightNetwork, GatedFusion, QualityAwareFusion
from model_defs.vqa.pyramid import HierarchicalFeatureFusion, PyramidFeatureFusion


def parameters(name: str, **options: int) -> int:
    """Of the whole published network; on no device, so that the largest costs nothing."""
    with torch.device("meta"):
        return count(library().create_model(name, pretrained=False, **options))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("kind", "numbers", "keys"),
    [
        (CrossModalAttention, 3_152_384, 16),
        (BiDirectionalCrossAttention, 7_092_224, 36),
        (SelfAttentionFusion, 1_577_472, 9),
        (GatedFusion, 1_346_178, 14),
        (AdaptiveGatedFusion, 3_680_776, 22),
        (HierarchicalFeatureFusion, 3_936_768, 18),
        (PyramidFeatureFusion, 14_030_336, 20),
        (DynamicWeightNetwork, 1_879_618, 20),
        (QualityAwareFusion, 1_419_650, 18),
    ],
)
def test_modules_have_the_documents_parameters(kind: type[nn.Module], numbers: int, keys: int) -> None:
    """The repairs added no weight and took none."""
    with torch.device("meta"):
        made = kind()
    assert (count(made), len(made.state_dict())) == (numbers, keys)


@pytest.mark.parametrize(
    ("name", "whole", "headless", "stated", "keys"),
    [
        ("efficientnet_b0", 5_288_548, 4_007_548, 5.3, 358),
        ("efficientnet_b3", 12_233_232, 10_696_232, 12, 572),
        ("tf_efficientnet_b7", 66_347_960, 63_786_960, 66, 1198),
        ("vit_tiny_patch16_224", 5_717_416, None, 5.7, 150),
        ("vit_small_patch16_224", 22_050_664, None, 22, 150),
        ("vit_base_patch16_224", 86_567_656, None, 86, 150),
        ("convnext_tiny", 28_589_128, None, 28.6, 180),
        ("convnext_small", 50_223_688, None, 50.2, 342),
        ("convnext_base", 88_591_464, None, 88.6, 342),
        ("convnext_large", 197_767_336, None, 197.8, 342),
    ],
)
def test_the_stated_sizes_are_true_to_rounding(
    name: str, whole: int, headless: int | None, stated: float, keys: int
) -> None:
    assert parameters(name) == whole
    assert whole / 1e6 == pytest.approx(stated, abs=0.6 if stated == int(stated) else 0.05)
    if headless is not None:
        assert parameters(name, num_classes=0) == headless
    with torch.device("meta"):
        headless_keys = len(library().create_model(name, pretrained=False, num_classes=0).state_dict())
    assert headless_keys == keys


def test_vit_large_has_304_million_parameters_and_not_307() -> None:
    assert parameters("vit_large_patch16_224") == 304_326_632
    with torch.device("meta"):
        headless = library().create_model("vit_large_patch16_224", pretrained=False, num_classes=0)
    assert len(headless.state_dict()) == 294


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        (("efficientnet_b0", "tf_efficientnet_b0"), [16, 24, 40, 112, 320]),
        (("efficientnet_b3", "tf_efficientnet_b3"), [24, 32, 48, 136, 384]),
        (("efficientnet_b7", "tf_efficientnet_b7"), [32, 48, 80, 224, 640]),
        (("convnext_tiny", "convnext_small"), [96, 192, 384, 768]),
        (("convnext_base",), [128, 256, 512, 1024]),
        (("convnext_large",), [192, 384, 768, 1536]),
    ],
)
def test_channels_and_strides_of_every_stage(names: tuple[str, ...], channels: list[int]) -> None:
    """Of a map that is really computed; the first of EfficientNet's five, at half the size, is not among our four."""
    for name in names:
        with torch.device("meta"):
            backbone = Backbone(name)
            maps = backbone.stages(torch.zeros(1, 3, 64, 64))
        assert [info["num_chs"] for info in backbone.model.feature_info] == channels
        assert [m.shape[1] for m in maps] == channels[-4:]
        assert [64 // m.shape[2] for m in maps] == [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("name", "width", "stages"),
    [
        ("efficientnet_b0", 1280, (24, 40, 112, 320)),
        ("efficientnet_b3", 1536, (32, 48, 136, 384)),
        ("tf_efficientnet_b7", 2560, (48, 80, 224, 640)),
        ("vit_tiny_patch16_224", 192, (192,) * 4),
        ("vit_small_patch16_224", 384, (384,) * 4),
        ("vit_base_patch16_224", 768, (768,) * 4),
        ("vit_large_patch16_224", 1024, (1024,) * 4),
        ("convnext_tiny", 768, (96, 192, 384, 768)),
        ("convnext_small", 768, (96, 192, 384, 768)),
        ("convnext_base", 1024, (128, 256, 512, 1024)),
        ("convnext_large", 1536, (192, 384, 768, 1536)),
    ],
)
def test_widths_of_features_and_of_the_four_stages(name: str, width: int, stages: tuple[int, ...]) -> None:
    with torch.device("meta"):
        backbone = Backbone(name)
    assert (backbone.width, backbone.stage_widths) == (width, stages)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != SMALLEST_BACKBONE])
def test_every_size_of_the_document_can_be_chosen(name: str) -> None:
    kind = {EFFICIENTNETS: "efficientnet", VITS: "vit", CONVNEXTS: "convnext"}
    family = next(family for names, family in kind.items() if name in names)
    definition = registry.model(f"extractor-{family}", {"backbone": name})
    with torch.device("meta"):
        assert count(definition.build()) > 4_000_000
    assert registry.model("vqa", {"backbone": name, "second_backbone": name})


def test_tf_variants_pad_otherwise_and_have_another_epsilon() -> None:
    """The same keys and shapes, and other outputs: one's weights never belong into the other."""
    with torch.device("meta"):
        plain, other = Backbone("efficientnet_b0").model, Backbone("tf_efficientnet_b0").model
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    assert (plain.bn1.eps, other.bn1.eps) == (1e-5, 1e-3)
    assert type(plain.conv_stem).__name__ != type(other.conv_stem).__name__
