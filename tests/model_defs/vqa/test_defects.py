"""The defects of the document's code, one test each: the right behaviour, named after what was wrong.

What the document's trainer got wrong is tested with the trainer.
"""

from __future__ import annotations

import math
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from exporter import define, registry
from exporter.errors import Refused
from exporter.verdict import Verdict
from model_defs.vqa.attention import (
    BiDirectionalCrossAttention,
    CrossModalAttention,
    MultiHeadAttention,
    SelfAttentionFusion,
)
from model_defs.vqa.config import FUSIONS, OF_STAGES, VITS, VQAConfig
from model_defs.vqa.extractors import (
    HALVES,
    IMAGENET,
    Backbone,
    ConvNeXtExtractor,
    EfficientNetExtractor,
    MultiScaleExtractor,
    ViTExtractor,
    extractor,
)
from model_defs.vqa.fusion import AdaptiveGatedFusion, DynamicWeightNetwork, GatedFusion, QualityAwareFusion
from model_defs.vqa.losses import entropy
from model_defs.vqa.network import VQA, VQAOfClip
from model_defs.vqa.pyramid import HierarchicalFeatureFusion, PyramidFeatureFusion

from .specimens import seeded, specimen

D = 32


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def image(batch: int = 1, size: int = 64) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def vector(seed: int, batch: int = 2, width: int = D) -> Tensor:
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


def test_the_pooled_features_are_not_reduced_by_a_new_random_matrix_at_each_call() -> None:
    """The document's ``forward`` made a linear layer: untrained, absent from the checkpoint, other at every call."""
    one = seeded(EfficientNetExtractor("efficientnet_b0", D))
    with torch.no_grad():
        assert torch.equal(one(image()), one(image()))
    assert one.state_dict()["pool_reduce.weight"].shape == (1280, 2560)
    one(image()).sum().backward()
    assert one.pool_reduce.weight.grad.abs().max() > 0


def test_squeeze_and_excitation_takes_vectors() -> None:
    """The document pooled ``(B, 512, 1)`` and gave the last axis, of size 1, to a layer of 512 inputs."""
    with_gate = seeded(EfficientNetExtractor("efficientnet_b0", D))
    without = seeded(EfficientNetExtractor("efficientnet_b0", D, gate=False))
    with torch.no_grad():
        gated, plain = with_gate(image(2)), without(image(2))
        assert gated.shape == plain.shape == (2, D)
        torch.testing.assert_close(gated, plain * with_gate.gate(plain))
    assert not torch.allclose(gated, plain)


def test_a_batch_of_one_trains() -> None:
    """The document's projection had BatchNorm1d, which raises on one image in train mode."""
    one = EfficientNetExtractor("efficientnet_b0", D).train()
    assert one(image(1)).shape == (1, D)
    assert not any(isinstance(part, nn.BatchNorm1d) for part in one.modules())


def test_no_constructor_needs_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's extractors downloaded weights when they were made."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a constructor opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for make in (
        lambda: EfficientNetExtractor("efficientnet_b0", D),
        lambda: ViTExtractor("vit_tiny_patch16_224", D),
        lambda: ConvNeXtExtractor("convnext_tiny", D),
        lambda: MultiScaleExtractor(EfficientNetExtractor("efficientnet_b0", D), 64, (32, 64), D),
        lambda: VQA(VQAConfig(backbone="efficientnet_b0", second_backbone="convnext_tiny")),
    ):
        make()


@pytest.mark.parametrize("stages_only", [False, True])
@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "tf_efficientnet_b0", "test_efficientnet", "vit_tiny_patch16_224", "convnext_tiny"]
)
def test_published_weights_are_given_and_not_fetched(name: str, stages_only: bool) -> None:
    """The other half: weights enter by ``load``, strictly, without the parts of the published file that are not here:
    the classifier, and what comes after the last stage where only stages are read."""
    from model_defs._timm import library

    published = library().create_model(name, pretrained=False)
    define.seed_weights(published, 1)
    given, backbone = published.state_dict(), Backbone(name, stages_only=stages_only)
    backbone.load(given)
    found = backbone.model.state_dict()
    assert len(found) > 50 and all(torch.equal(value, given[key]) for key, value in found.items())
    left = {key for key in given if key not in found}
    last = {key for key in left if key.startswith(("conv_head.", "bn2."))}
    assert bool(last) == (stages_only and "efficientnet" in name)
    assert {key.partition(".")[0] for key in left - last} <= {"classifier", "head"}
    first = next(key for key in found if key.endswith("weight"))
    with pytest.raises(Refused, match="1 missing") as caught:
        backbone.load({key: value for key, value in given.items() if key != first}, "file weights.pth")
    assert caught.value.code == "wrong-checkpoint" and caught.value.where == "file weights.pth"
    with pytest.raises(Refused, match=f"nearest: {first}"):
        backbone.load({f"{key}s" if key == first else key: value for key, value in given.items()})


def test_published_weights_may_lack_the_counts_of_batch_norms() -> None:
    """Files older than these counts do; the counts decide nothing here. Everything else is asked for."""
    from model_defs._timm import library

    published = library().create_model("test_efficientnet", pretrained=False).state_dict()
    backbone = Backbone("test_efficientnet")
    backbone.load({key: value for key, value in published.items() if "num_batches_tracked" not in key})
    assert torch.equal(backbone.model.conv_stem.weight, published["conv_stem.weight"])
    with pytest.raises(Refused, match="missing"):
        backbone.load({key: value for key, value in published.items() if "running_mean" not in key})


def test_every_size_of_efficientnet_can_be_chosen() -> None:
    """b1, b2, b4, b5 and b6 raised KeyError in the document."""
    for size in range(8):
        for prefix in ("", "tf_"):
            assert registry.model("extractor-efficientnet", {"backbone": f"{prefix}efficientnet_b{size}"})


def test_compound_scaling_multiplies_operations_by_depth_width_and_resolution_squared() -> None:
    """The document has depth * width * resolution. Of b1 to b3, at the sizes they were published for, operations grow
    by depth * width^2 * resolution^2, to 15 % (the stem and the last layer grow otherwise)."""
    sizes = (224, 240, 260, 300)
    depth, width, operations = zip(*(scale_of(f"efficientnet_b{i}", size) for i, size in enumerate(sizes)), strict=True)
    for i in (1, 2, 3):
        d, w, r, grown = (of[i] / of[0] for of in (depth, width, sizes, operations))
        assert 1.0 <= grown / (d * w**2 * r**2) < 1.15
    assert grown / (d * w * r) > 1.7


def scale_of(name: str, size: int) -> tuple[int, int, int]:
    """Blocks, channels of all stages, and FLOPs of an image of that size."""
    with torch.device("meta"):
        model = Backbone(name).eval().model
        with FlopCounterMode(display=False) as counter:
            model.forward_features(torch.zeros(1, 3, size, size))
    projections = [list(stage[-1].modules()) for stage in model.blocks]
    channels = [[m for m in parts if isinstance(m, nn.Conv2d)][-1].out_channels for parts in projections]
    return sum(len(stage) for stage in model.blocks), sum(channels), counter.get_total_flops()


@pytest.mark.parametrize("name", VITS)
def test_the_pool_of_a_vit_has_heads_that_divide_its_width(name: str) -> None:
    """6 heads (12 // 2) do not divide 512: the document's ViT extractor could not be made, whatever its name."""
    with torch.device("meta"):
        made = ViTExtractor(name)
    assert made.attention_pool.heads == 8
    with pytest.raises(ValueError, match="6 heads do not divide a width of 512"):
        MultiHeadAttention(512, 6)
    with pytest.raises(Refused, match="heads=6"):
        registry.model("extractor-vit", {"heads": 6})


def test_a_vit_has_no_parameter_that_nothing_reads() -> None:
    """The document's ``pos_encoding`` was never used, and ``num_heads`` was ignored."""
    made = seeded(ViTExtractor("vit_tiny_patch16_224", D))
    assert "pos_encoding" not in dict(made.named_parameters())
    made(image(1, 224)).square().sum().backward()
    idle = [name for name, p in made.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []
    four, two = (ViTExtractor("vit_tiny_patch16_224", D, heads=heads).attention_pool.heads for heads in (4, 2))
    assert (four, two) == (4, 2)


@torch.no_grad()
def test_nothing_is_normalised_after_a_vits_own_last_norm() -> None:
    """timm's ``forward_features`` ends in a norm, and the document's extractor put a second one behind it."""
    made = seeded(ViTExtractor("vit_tiny_patch16_224", D))
    normed: list[Tensor] = []
    given: list[Tensor] = []
    made.backbone.model.norm.register_forward_hook(lambda _, __, found: normed.append(found))
    made.projection.register_forward_pre_hook(lambda _, found: given.append(found[0]))
    made(image(1, 224))
    assert len(normed) == len(given) == 1 and torch.equal(given[0], normed[0])
    assert isinstance(made.projection[0], nn.Linear)
    wide = [m for m in made.modules() if isinstance(m, nn.LayerNorm) and m.normalized_shape == (192,)]
    assert len(wide) == 2 * 12 + 1, "two in each block, and timm's last"
    last = made.backbone.stages(image(1, 224))[-1]
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), normed[0][:, 1:])


def test_a_vit_refuses_other_sizes_and_says_so() -> None:
    """The document's multi-scale ViT could not run: 384 pixels are no input of a 224-pixel ViT."""
    with pytest.raises(AssertionError, match=r"384.*224"):
        ViTExtractor("vit_tiny_patch16_224", D)(image(1, 384))
    with pytest.raises(ValueError, match="no other scale"):
        MultiScaleExtractor(ViTExtractor("vit_tiny_patch16_224", D), 224, (112, 224), D)
    with pytest.raises(Refused, match="vit_tiny"):
        registry.model("multi-scale-extractor", {"backbone": "vit_tiny_patch16_224"})


def test_convnext_features_have_the_size_of_features() -> None:
    """The document scaled the output by 1e-6: features of 3e-6, and gradients as small."""
    made = ConvNeXtExtractor("convnext_tiny", D).eval()
    features = made(image())
    assert 0.3 < features.std() < 3
    features.square().sum().backward()
    assert made.projection[1].weight.grad.abs().max() > 1e-3
    assert not any("layer_scale" in name for name, _ in made.named_parameters(recurse=False))


def test_attention_over_places_is_normalised() -> None:
    """The document summed sigmoids over places: a map twice as large gave features four times as large."""
    made = seeded(ConvNeXtExtractor("convnext_tiny", D))
    small = torch.randn(1, 768, 4, 4, generator=torch.Generator().manual_seed(0))
    large = small.repeat(1, 1, 3, 3)
    torch.testing.assert_close(made.pool(large), made.pool(small), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("efficientnet_b0", (16, 8, 4, 2)),
        ("convnext_tiny", (16, 8, 4, 2)),
        ("vit_tiny_patch16_224", (14, 14, 14, 14)),
    ],
)
def test_the_four_stage_maps_are_four_different_maps(name: str, sizes: tuple[int, ...]) -> None:
    """The document returned the last map under four names, without gradients."""
    backbone = seeded(Backbone(name))
    maps = backbone.stages(image(1, 224 if name in VITS else 64))
    assert tuple(m.shape[2] for m in maps) == sizes
    assert tuple(m.shape[1] for m in maps) == backbone.stage_widths
    assert all(m.requires_grad for m in maps)
    for first, second in pairwise(maps):
        assert first.shape != second.shape or not torch.allclose(first, second, atol=1e-2)


def test_convnext_stem_is_4x4_and_its_depthwise_kernels_7x7() -> None:
    """The document has a 7x7 stem and 3x3 depthwise kernels."""
    with torch.device("meta"):
        model = Backbone("convnext_tiny").model
    assert (model.stem[0].kernel_size, model.stem[0].stride) == ((4, 4), (4, 4))
    depthwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 3]
    assert len(depthwise) == 18 and {m.kernel_size for m in depthwise} == {(7, 7)}


def test_the_scales_share_one_backbone() -> None:
    """The document made a backbone per scale: three times the parameters. Its list of scales was a shared default."""
    scales = MultiScaleExtractor(extractor("efficientnet_b0", D, 0.1, 0.0), 64, (32, 48, 64), D)
    single = extractor("efficientnet_b0", D, 0.1, 0.0)
    count = sum(p.numel() for p in single.parameters())
    added = 3 * D * D + D + 64 * (32 + 48)
    assert sum(p.numel() for p in scales.parameters()) == count + added
    assert isinstance(scales.scales, tuple)


def test_an_unknown_backbone_is_refused_when_it_is_named() -> None:
    """The document's multi-scale extractor was made empty, and failed when it was first used."""
    with pytest.raises(Refused, match="backbone=resnet50") as caught:
        registry.model("multi-scale-extractor", {"backbone": "resnet50"})
    assert "efficientnet_b0" in caught.value.why
    with pytest.raises(Refused) as caught:
        registry.model("extractor-efficientnet", {"backbone": "efficientnet-b0"})
    assert "nearest: efficientnet_b0" in caught.value.why


@pytest.mark.parametrize("scale", [224, 160, 96, 300])
def test_an_image_is_made_smaller_with_antialiasing(scale: int) -> None:
    """The document's bilinear downsampling skips pixels."""
    from model_defs.vqa.extractors import _resized, resampling

    given = image(1, 256)
    wanted = torch.nn.functional.interpolate(given.double(), (scale, scale), mode="bilinear", antialias=True)
    torch.testing.assert_close(_resized(given, resampling(256, scale)).double(), wanted, rtol=0, atol=1e-6)


def test_query_and_key_of_cross_attention_learn() -> None:
    """Over one key softmax is 1: the document's query and key projections had gradients of exactly 0."""
    one = seeded(CrossModalAttention(D, 4))
    query, tokens = torch.randn(2, 3, D), torch.randn(2, 5, D)
    attended, weights = one(query, tokens)
    attended.square().sum().backward()
    assert one.q_proj.weight.grad.abs().max() > 1e-4 and one.k_proj.weight.grad.abs().max() > 1e-4
    assert weights.shape == (2, 4, 3, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 3))
    for fusion in ("cross", "bidirectional"):
        tokens = seeded(VQA(VQAConfig(fusion=fusion, second_backbone="efficientnet_b0", feature_dim=D)))
        out = tokens(image(1, 224))
        assert all(value.shape[-1] > 1 for name, value in out.items() if "weights" in name)


def test_attention_weights_are_those_before_dropout_and_of_every_head() -> None:
    """The document's weights were lost (cross), or averaged over heads and, in training, taken after dropout (self)."""
    for make in (lambda: CrossModalAttention(D, 4, 0.5), lambda: MultiHeadAttention(D, 4, 0.5)):
        one = seeded(make()).train()
        weights = one(torch.randn(2, 3, D), torch.randn(2, 5, D))[1]
        assert weights.shape == (2, 4, 3, 5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 3))


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_bidirectional_attention_returns_its_weights_whatever_the_batch(batch: int) -> None:
    """The document returned one tensor where two were unpacked: batches of 1 and 4 raised, and one of 2 was unpacked
    along the batch, without a word."""
    one = seeded(BiDirectionalCrossAttention(D, 4))
    fused, there, back = one(torch.randn(batch, 3, D), torch.randn(batch, 5, D))
    assert (fused.shape, there.shape, back.shape) == ((batch, D), (batch, 4, 1, 5), (batch, 4, 1, 3))
    model = seeded(VQA(VQAConfig(second_backbone="efficientnet_b0", feature_dim=D)))
    with torch.no_grad():
        assert model(image(batch, 224))["quality_score"].shape == (batch, 1)


def test_self_attention_keeps_the_features() -> None:
    """The document had no residual, and a position embedding as large as the features, which drowned them."""
    one = SelfAttentionFusion(D, 4).eval()
    assert one.pos_embedding.std() < 0.05
    nn.init.zeros_(one.self_attention.out_proj.weight)
    nn.init.zeros_(one.self_attention.out_proj.bias)
    first, second = vector(0), vector(1)
    kept = one.output_proj(one.norm(torch.stack([first, second], 1) + one.pos_embedding).flatten(1))
    torch.testing.assert_close(one(first, second)[0], kept)


def test_explicit_attention_is_pytorchs() -> None:
    """The weights of the document's ``MultiheadAttention`` load, and give the same."""
    theirs = nn.MultiheadAttention(D, 4, batch_first=True).eval()
    ours = MultiHeadAttention(D, 4).eval()
    ours.load_state_dict(theirs.state_dict())
    query, tokens = torch.randn(2, 3, D), torch.randn(2, 5, D)
    wanted = theirs(query, tokens, tokens, average_attn_weights=False)
    for found, right in zip(ours(query, tokens), wanted, strict=True):
        torch.testing.assert_close(found, right)


def test_the_adaptive_gate_has_no_noise_in_evaluation() -> None:
    """The document's ``training=True`` was a default that nobody passed: two evaluations differed by 0.03."""
    one = seeded(AdaptiveGatedFusion(D, 4))
    with torch.no_grad():
        assert torch.equal(one(vector(0), vector(1))[0], one(vector(0), vector(1))[0])
        one.train()
        for part in one.modules():
            if isinstance(part, nn.Dropout):
                part.eval()
        assert not torch.equal(one(vector(0), vector(1))[1], one(vector(0), vector(1))[1])


def test_the_adaptive_gate_has_one_softmax_and_noise_of_a_positive_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document took softmax of a softmax in training, so the gates were flatter there; its noise had any sign."""
    one = seeded(AdaptiveGatedFusion(D, 4, dropout=0.0))
    calm = one(vector(0), vector(1))[1]
    both = torch.cat([vector(0), vector(1)], 1)
    torch.testing.assert_close(calm, torch.softmax(one.gating_network(both), 1))
    one.train()
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    torch.testing.assert_close(one(vector(0), vector(1))[1], calm)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    size = torch.nn.functional.softplus(one.noise_gate(both))
    assert (size > 0).all()
    torch.testing.assert_close(one(vector(0), vector(1))[1], torch.softmax(one.gating_network(both) + size, 1))


def test_no_random_operator_reaches_the_graph(tmp_path: Path) -> None:
    """The document's noise would have been a RandomNormalLike."""
    it = specimen("adaptive-gated-fusion", tmp_path, feature_dim=64)
    for path in (it.traced, it.simplified):
        assert not [n.op_type for n in onnx.load(path).graph.node if "Random" in n.op_type or n.op_type == "Dropout"]
    assert it.verify("openvino").verdict is Verdict.PASS


def test_what_encourages_sparse_gates_is_smaller_for_sparse_gates() -> None:
    """The document minimised the sum of squares, which is least for equal gates. Entropy is least for one gate of 1."""
    equal, one_hot = torch.full((1, 4), 0.25), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert entropy(equal).item() == pytest.approx(math.log(4)) and entropy(one_hot).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_can_be_chosen_and_reads_both_branches(fusion: str) -> None:
    """The document's model had neither the hierarchical nor the pyramid fusion, and ignored most of its settings."""
    first, second = image(1, 224), image(1, 224) ** 3
    model = VQA(VQAConfig(fusion=fusion, second_backbone="efficientnet_b0", inputs=2, feature_dim=D))
    seeded(model, first, second)
    with torch.no_grad():
        scores = [model(*pair)["quality_score"] for pair in ((first, second), (second, second), (first, first))]
    assert scores[0].shape == (1, 1)
    assert not torch.allclose(scores[0], scores[1], rtol=1e-4)
    assert not torch.allclose(scores[0], scores[2], rtol=1e-4)


@pytest.mark.parametrize("fusion", OF_STAGES)
@torch.no_grad()
def test_each_of_the_four_maps_of_either_branch_moves_the_score(fusion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's stages were one map four times: three of its levels said nothing of their own."""
    names = {"backbone": "test_efficientnet", "second_backbone": "efficientnet_b0"}
    model = seeded(VQA(VQAConfig(fusion=fusion, feature_dim=D, **names)), image(1, 224))
    score = model(image(1, 224))["quality_score"]
    for branch in (model.branch_1, model.branch_2):
        maps = branch.stages(image(1, 224))
        for level in range(4):
            moved = tuple(m * 1.5 if index == level else m for index, m in enumerate(maps))
            with monkeypatch.context() as patch:
                patch.setattr(branch, "stages", lambda _, moved=moved: moved)
                assert not torch.allclose(model(image(1, 224))["quality_score"], score, rtol=1e-4), level


def test_a_clip_is_not_added_raw() -> None:
    """The document's temporal extractor was the identity: frames would have been added to features."""
    config = VQAConfig(fusion="gated", second_backbone="efficientnet_b0", temporal="tsm", frames=2, feature_dim=D)
    clip = torch.stack([image(1, 224), image(1, 224) ** 3], dim=1)
    model = seeded(VQAOfClip(config), image(1, 224), clip)
    with torch.no_grad():
        there, back = (model(image(1, 224), frames=f)["quality_score"] for f in (clip, clip.flip(1)))
    assert there.shape == (1, 1) and not torch.allclose(there, back, rtol=1e-5)
    with pytest.raises(ValueError, match="no clip"):
        VQA(config)(image(1, 224))


def test_every_branch_normalises_as_its_weights_want_it() -> None:
    """The document had no normalisation; a ViT's weights want mean and deviation 0.5, the others' ImageNet's."""
    model = VQA(VQAConfig(feature_dim=D))
    for branch, (mean, std) in ((model.branch_1, IMAGENET), (model.branch_2, HALVES)):
        assert branch.backbone.mean.flatten().tolist() == pytest.approx(mean)
        assert branch.backbone.std.flatten().tolist() == pytest.approx(std)
        seen: list[Tensor] = []
        stem = next(branch.backbone.model.children())
        handle = stem.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        branch(image(1, 224))
        handle.remove()
        wanted = (image(1, 224) - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
        torch.testing.assert_close(seen[0], wanted)
    define.seed_weights(model, 0)
    assert model.branch_2.backbone.mean.flatten().tolist() == [0.5] * 3, "a seed is no normalisation"


def test_a_missing_second_image_is_not_replaced_by_the_first() -> None:
    """In the document a model of two images took the first one twice when the second was forgotten."""
    two = VQA(VQAConfig(fusion="gated", second_backbone="efficientnet_b0", inputs=2, feature_dim=D))
    with pytest.raises(ValueError, match="1 images, and the model's inputs are 2"):
        two(image(1, 224))
    one = VQA(VQAConfig(fusion="gated", second_backbone="efficientnet_b0", feature_dim=D))
    with pytest.raises(ValueError, match="2 images, and the model's inputs are 1"):
        one(image(1, 224), image(1, 224))


def test_fusions_take_a_fixed_number_of_inputs_and_check_their_shapes() -> None:
    """The document's took lists, of any length and width: what was too much was ignored, or broadcast."""
    with pytest.raises(ValueError, match="3 vectors, and 2"):
        DynamicWeightNetwork(D, 8)(vector(0), vector(1), vector(2))
    with pytest.raises(ValueError, match="2 levels, and 3"):
        HierarchicalFeatureFusion((4, 4, 4), D)(vector(0, width=4), vector(1, width=4))
    with pytest.raises(ValueError, match="1 levels, and 2"):
        PyramidFeatureFusion((4, 4), D)(torch.zeros(1, 4, 8, 8))
    for fusion in (GatedFusion(D), AdaptiveGatedFusion(D), QualityAwareFusion(D), SelfAttentionFusion(D, 4)):
        with pytest.raises(ValueError, match="features_2 has shape"):
            fusion(vector(0), vector(1, width=1))
        with pytest.raises(ValueError, match="features_1 has shape"):
            fusion(vector(0)[:, None], vector(1))


def test_defaults_are_not_shared_between_modules() -> None:
    """The document's default lists were one object for all."""
    import inspect

    for kind in (HierarchicalFeatureFusion, PyramidFeatureFusion, MultiScaleExtractor):
        defaults = [p.default for p in inspect.signature(kind).parameters.values()]
        assert not any(isinstance(default, (list, dict, set)) for default in defaults), kind


def test_weights_of_two_hopeless_sides_are_still_weights() -> None:
    """The document divided by the sum of the reliabilities plus 1e-8, which is 0 in half precision."""
    one = QualityAwareFusion(D, 8).eval()
    nn.init.constant_(one.quality_assessor[-1].bias, -60.0)
    _, qualities, _, weights = one(vector(0), vector(1))
    assert qualities.max() < 1e-20
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    seeded(one)
    _, quality, uncertainty, weights = one(vector(0), vector(1))
    reliability = quality * (1 - uncertainty)
    torch.testing.assert_close(weights, reliability / reliability.sum(1, keepdim=True))


def test_the_pyramid_follows_the_sizes_of_its_maps(tmp_path: Path) -> None:
    """The document's interpolation froze the sizes it was traced at."""
    it = specimen("pyramid-fusion", tmp_path, feature_dim=16, widths="8,16,24,32")
    assert len({tuple(case["sizes"].items()) for case in it.reference["cases"]}) >= 3
    assert it.verify("mobile").verdict is Verdict.PASS


def test_the_usage_example_runs() -> None:
    """The document's example raised when the model was made, and would have raised at the first image."""
    model = VQA(VQAConfig()).eval()
    with torch.no_grad():
        outputs = model(image(1, 224))
    assert outputs["quality_score"].shape == (1, 1)
    assert list(outputs) == [tensor.name for tensor in registry.model("vqa").outputs]
