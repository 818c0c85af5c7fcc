"""Every definition passes on both targets and has the network's names; options that make no model are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import registry
from exporter.errors import Refused
from exporter.spec import ModelDef
from exporter.verdict import Verdict
from model_defs.vqa.config import FUSIONS, TEMPORALS

from .specimens import TARGETS, specimen

BLOCKS = (
    "self-attention-fusion",
    "gated-fusion",
    "adaptive-gated-fusion",
    "hierarchical-fusion",
    "dynamic-weights",
    "quality-aware-fusion",
    "temporal-tsm",
    "temporal-tea",
    "temporal-slowfast",
)
SMALL = {"feature_dim": 32}
# One image: what a second adds is tested with the blocks.
ONE = ("batch=1",)


def passes(name: str, folder: Path, dims: tuple[str, ...] = (), **options: Any) -> None:
    it = specimen(name, folder, dims, **options)
    for target in TARGETS:
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, (target, hop.reason)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.slow
def test_a_block_passes_on_both_targets(name: str, tmp_path: Path) -> None:
    options = {"channels": 16, "frames": 4} if name.startswith("temporal") else {"feature_dim": 64}
    passes(name, tmp_path, **options)


@pytest.mark.parametrize("name", ["cross-modal-attention", "bidirectional-attention"])
def test_a_block_of_tokens_passes_on_both_targets(name: str, tmp_path: Path) -> None:
    passes(name, tmp_path, ("batch=1:1:3", "N=2:5:9", "M=2:7:12"), feature_dim=64)


def test_the_pyramid_passes_on_both_targets(tmp_path: Path) -> None:
    passes("pyramid-fusion", tmp_path, feature_dim=16, widths="8,16,24,32")


@pytest.mark.slow
def test_the_vit_branch_passes_on_both_targets(tmp_path: Path) -> None:
    passes("extractor-vit", tmp_path, ONE, feature_dim=32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("extractor-convnext", {"size": 96}),
        ("multi-scale-extractor", {"size": 96, "scales": "64,96", "backbone": "convnext_tiny"}),
    ],
)
def test_a_branch_passes_on_both_targets(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    passes(name, tmp_path, ONE, **SMALL, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("extractor-efficientnet", {"backbone": "efficientnet_b0"}),
        ("extractor-efficientnet", {"backbone": "tf_efficientnet_b0", "size": 96, "gate": False}),
        ("multi-scale-extractor", {"size": 96, "scales": "32,64,96"}),
        # Of the larger sizes some of each kind: they differ in widths, in depths, and in how they pad.
        ("extractor-efficientnet", {"backbone": "efficientnet_b3", "size": 96}),
        ("extractor-efficientnet", {"backbone": "tf_efficientnet_b5", "size": 64}),
        ("extractor-vit", {"backbone": "vit_small_patch16_224"}),
        ("extractor-convnext", {"backbone": "convnext_small", "size": 64}),
    ],
)
def test_a_branch_on_efficientnet_passes_on_both_targets(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    passes(name, tmp_path, ONE, **SMALL, **options)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_model_passes_on_both_targets_with_every_fusion(fusion: str, tmp_path: Path) -> None:
    passes("vqa", tmp_path, ONE, fusion=fusion, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("temporal", TEMPORALS[1:])
def test_the_model_passes_on_both_targets_with_every_model_of_time(temporal: str, tmp_path: Path) -> None:
    passes("vqa", tmp_path, ONE, fusion="gated", temporal=temporal, frames=4, **SMALL)


@pytest.mark.slow
def test_the_model_of_two_images_and_a_clip_passes_on_both_targets(tmp_path: Path) -> None:
    passes("vqa", tmp_path, ONE, fusion="self", inputs=2, temporal="tsm", frames=2, **SMALL)


def outputs_of(definition: ModelDef) -> dict[str, tuple[int, ...]]:
    """What the module gives, in order, for a batch of two."""
    with torch.device("meta"):
        module = definition.build().eval()
        outputs = module(*(torch.zeros(tensor.sized({"batch": 2})) for tensor in definition.inputs))
    return {name: tuple(value.shape) for name, value in outputs.items()}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("backbones", [("vit_tiny_patch16_224", "efficientnet_b0"), ("convnext_tiny",) * 2])
def test_names_and_shapes_of_the_outputs_are_the_networks(fusion: str, backbones: tuple[str, str]) -> None:
    options = {"fusion": fusion, "backbone": backbones[0], "second_backbone": backbones[1], "feature_dim": 64}
    definition = registry.model("vqa", options)
    found = outputs_of(definition)
    assert next(iter(found)) == "quality_score"
    assert list(found.items()) == [(t.name, t.sized({"batch": 2})) for t in definition.outputs]


@pytest.mark.parametrize(
    ("fusion", "parts"),
    [
        ("cross", ["attention_weights"]),
        ("bidirectional", ["attention_weights_1", "attention_weights_2"]),
        ("self", ["attention_weights"]),
        ("gated", ["gate_weights"]),
        ("adaptive", ["gate_weights"]),
        ("dynamic", ["dynamic_weights"]),
        ("quality", ["qualities", "uncertainties", "quality_weights"]),
        ("hierarchical", []),
        ("pyramid", []),
    ],
)
def test_names_of_the_outputs_are_stable(fusion: str, parts: list[str]) -> None:
    """Bundles and their users know the outputs by these names."""
    definition = registry.model("vqa", {"fusion": fusion, **SMALL})
    assert [tensor.name for tensor in definition.outputs] == ["quality_score", "fused_features", *parts]
    assert list(outputs_of(definition)) == ["quality_score", "fused_features", *parts]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"inputs": 2}, ["image", "second_image"]),
        ({"temporal": "tsm"}, ["image", "frames"]),
        ({"inputs": 2, "temporal": "slowfast"}, ["image", "second_image", "frames"]),
    ],
)
def test_every_form_takes_its_inputs_in_order(options: dict[str, Any], names: list[str]) -> None:
    definition = registry.model("vqa", {"fusion": "gated", "second_backbone": "efficientnet_b0", **options, **SMALL})
    assert [tensor.name for tensor in definition.inputs] == names
    assert outputs_of(definition)["quality_score"] == (2, 1)


def test_the_parameters_of_the_defaults() -> None:
    with torch.device("meta"):
        counts = {
            name: sum(p.numel() for p in registry.model(name).build().parameters())
            for name in ("extractor-efficientnet", "extractor-vit", "extractor-convnext", "vqa")
        }
    assert counts == {
        "extractor-efficientnet": 8_469_282,
        "extractor-vit": 6_646_310,
        "extractor-convnext": 28_387_494,
        "vqa": 22_372_169,
    }


def test_photographs_are_scored_by_what_is_left_of_them() -> None:
    samples = {sample.name: sample for sample in registry.model("vqa").samples()}  # type: ignore[misc]
    if not samples:
        pytest.skip("scikit-image is not installed")
    assert len(samples) == 6
    for sample in samples.values():
        assert sample.values["image"].shape == (1, 3, 224, 224) and sample.values["image"].dtype == "float32"
        assert sample.values["image"].min() >= 0 and sample.values["image"].max() <= 1
        assert 0 <= sample.truth["score"][0] <= 1
    scores = [sample.truth["score"][0] for sample in samples.values()]
    assert len(set(scores)) >= 4, "equal scores have no ranks"
    clean, jpeg = samples["photograph-0-clean"], samples["photograph-0-jpeg"]
    assert clean.truth["score"][0] == 1 and jpeg.truth["score"][0] < 0.5
    assert abs(clean.values["image"] - jpeg.values["image"]).max() > 0.05


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("extractor-efficientnet", {"backbone": "convnext_tiny"}, "efficientnet_b0"),
        ("extractor-efficientnet", {"size": 16}, "from 32"),
        ("extractor-efficientnet", {"feature_dim": 20}, "multiple of 16"),
        ("extractor-efficientnet", {"gate": 2}, "true or false"),
        ("extractor-vit", {"heads": 5}, "divide"),
        ("extractor-vit", {"heads": 0}, "from 1"),
        ("extractor-convnext", {"feature_dim": 1.5}, "whole"),
        ("multi-scale-extractor", {"scales": "224"}, "at least 2"),
        ("multi-scale-extractor", {"scales": "224,160"}, "rise"),
        ("multi-scale-extractor", {"scales": "224,384,512"}, "size"),
        ("multi-scale-extractor", {"scales": "small,large"}, "commas"),
        ("cross-modal-attention", {"heads": 7}, "divide"),
        ("bidirectional-attention", {"feature_dim": "wide"}, "whole"),
        ("self-attention-fusion", {"heads": 3}, "divide"),
        ("gated-fusion", {"hidden": 5}, "multiple of 2"),
        ("adaptive-gated-fusion", {"experts": 1}, "from 2"),
        ("hierarchical-fusion", {"widths": "512"}, "at least 2"),
        ("pyramid-fusion", {"widths": "256,0"}, "from 1"),
        ("dynamic-weights", {"sides": 1}, "from 2"),
        ("quality-aware-fusion", {"hidden": 0}, "from 1"),
        ("temporal-tsm", {"frames": 1}, "multiple of 2"),
        ("temporal-tea", {"channels": 6}, "multiple of 4"),
        ("temporal-slowfast", {"frames": 6}, "multiple of 4"),
        ("vqa", {"fusion": "concat"}, "bidirectional"),
        ("vqa", {"inputs": 1.0}, "whole"),
    ],
)
def test_options_that_make_no_model(name: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(Refused) as caught:
        registry.model(name, options)
    error = caught.value
    assert error.code == "bad-option" and name in error.what + error.where and word in error.why, error.why
    assert error.next == f"exporter models {name}"
