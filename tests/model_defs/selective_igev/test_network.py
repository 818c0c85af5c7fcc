"""The network has the published checkpoint's keys, shapes and parameters, and computes what its equations say."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter import checkpoint

from .parts import module


def parameters(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def test_it_has_785_keys_and_13140932_parameters(network: nn.Module) -> None:
    assert len(network.state_dict()) == 785
    assert parameters(network) == 13_140_932


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("feature", 2_116_544),
        ("cost_agg", 432_832),
        ("cnet", 4_321_184),
        ("update_block.disp_head", 297_473),
        ("sam", 98),
        ("cam", 2_048),
    ],
)
def test_each_part_has_its_published_number_of_parameters(network: nn.Module, part: str, count: int) -> None:
    assert parameters(network.get_submodule(part)) == count


def test_the_recurrent_units_have_their_published_number_of_parameters(network: nn.Module) -> None:
    units = [parameters(network.get_submodule(f"update_block.gru{level}")) for level in ("16", "08", "04")]
    assert units == [1_475_328, 1_966_848, 1_966_848]


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("cnet.conv1.weight", (64, 3, 7, 7)),
        ("cnet.layer2.0.norm3.running_mean", (96,)),
        ("cnet.layer2.0.downsample.1.running_mean", (96,)),
        ("cnet.outputs04.0.0.conv1.weight", (128, 128, 3, 3)),
        ("cnet.outputs08.1.1.weight", (128, 128, 3, 3)),
        ("cnet.outputs16.1.weight", (128, 128, 3, 3)),
        ("update_block.encoder.convc1.weight", (64, 162, 1, 1)),
        ("update_block.encoder.convd1.weight", (64, 1, 7, 7)),
        ("update_block.encoder.conv.weight", (127, 128, 3, 3)),
        ("update_block.gru16.small_gru.convz.weight", (128, 384, 1, 1)),
        ("update_block.gru04.large_gru.convq.weight", (128, 512, 3, 3)),
        ("update_block.disp_head.conv2.weight", (1, 256, 3, 3)),
        ("update_block.mask_feat_4.0.weight", (32, 128, 3, 3)),
        ("sam.samconv.weight", (1, 2, 7, 7)),
        ("cam.fc.0.weight", (8, 128, 1, 1)),
        ("cam.fc.2.weight", (128, 8, 1, 1)),
        ("feature.conv_stem.weight", (32, 3, 3, 3)),
        ("feature.block0.0.0.conv_dw.weight", (32, 1, 3, 3)),
        ("feature.block3.1.2.conv_pwl.weight", (96, 576, 1, 1)),
        ("feature.block4.0.0.conv_dw.weight", (576, 1, 3, 3)),
        ("feature.deconv32_16.conv1.conv.weight", (160, 96, 4, 4)),
        ("feature.conv4.conv.weight", (48, 48, 3, 3)),
        ("stem_2.0.conv.weight", (32, 3, 3, 3)),
        ("stem_4.1.weight", (48, 48, 3, 3)),
        ("spx.0.weight", (64, 9, 4, 4)),
        ("spx_2.conv2.conv.weight", (64, 64, 3, 3)),
        ("spx_4.0.conv.weight", (24, 96, 3, 3)),
        ("spx_2_gru.conv1.bn.weight", (32,)),
        ("spx_gru.0.bias", (9,)),
        ("conv.conv.weight", (96, 96, 3, 3)),
        ("desc.bias", (96,)),
        ("corr_stem.conv.weight", (8, 8, 3, 3, 3)),
        ("corr_feature_att.feat_att.0.conv.weight", (48, 96, 1, 1)),
        ("corr_feature_att.feat_att.1.weight", (8, 48, 1, 1)),
        ("cost_agg.conv3.0.conv.weight", (48, 32, 3, 3, 3)),
        ("cost_agg.agg_0.0.conv.weight", (32, 64, 1, 1, 1)),
        ("cost_agg.conv1_up.conv.weight", (16, 8, 4, 4, 4)),
        ("classifier.weight", (1, 8, 3, 3, 3)),
    ],
)
def test_a_key_has_its_published_shape(network: nn.Module, key: str, shape: tuple[int, ...]) -> None:
    assert tuple(network.state_dict()[key].shape) == shape


def test_a_published_checkpoint_loads_with_its_prefix(network: nn.Module, tmp_path: Path) -> None:
    """The published files are the bare state dict of a ``DataParallel`` model."""
    mine, file = copy.deepcopy(network), tmp_path / "sceneflow.pth"
    wanted = {key: value + 1 for key, value in mine.state_dict().items()}
    torch.save({f"module.{key}": value for key, value in wanted.items()}, file)
    checkpoint.load(mine, file)
    assert all(torch.equal(value, wanted[key]) for key, value in mine.state_dict().items())


def test_instance_normalisations_have_no_keys(network: nn.Module) -> None:
    norms = [name for name, part in network.named_modules() if isinstance(part, nn.InstanceNorm2d)]
    assert norms
    assert not [key for key in network.state_dict() if any(key.startswith(f"{name}.") for name in norms)]


def test_a_normalisation_with_two_names_is_one(network: nn.Module) -> None:
    state = network.state_dict()
    assert state["cnet.layer4.0.norm3.weight"].data_ptr() == state["cnet.layer4.0.downsample.1.weight"].data_ptr()


@torch.no_grad()
def test_outputs_have_the_images_size(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    (disparity,) = network(*pair, iterations=1)
    assert disparity.shape == (1, 1, 64, 96)


@torch.no_grad()
def test_the_number_of_iterations_changes_the_disparity(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    one, two = (network(*pair, iterations=count)[0] for count in (1, 2))
    assert (one - two).abs().mean() > 1e-3


@torch.no_grad()
def test_an_image_does_not_change_the_other_of_a_batch(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    left, right = pair
    (alone,) = network(left, right, iterations=1)
    (together,) = network(torch.cat([left, right]), torch.cat([right, left]), iterations=1)
    torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-3)


def test_without_an_iteration_there_is_nothing_to_upsample(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="0 iterations"):
        network(*pair, iterations=0)


@torch.no_grad()
def test_the_attention_maps_are_weights_at_three_strides(pair: tuple[Tensor, Tensor]) -> None:
    network = module("network").SelectiveIGEV(iterations=1, attention_map=True).eval()
    _, *maps = network(*pair)
    assert [tuple(attention.shape) for attention in maps] == [(1, 1, 16, 24), (1, 1, 8, 12), (1, 1, 4, 6)]
    assert all(attention.min() > 0 and attention.max() < 1 for attention in maps)


@torch.no_grad()
def test_the_aggregation_gates_every_disparity_alike() -> None:
    gate = module("aggregation").FeatureAttention(8, 96).eval()
    features = torch.randn(1, 96, 4, 5, generator=torch.Generator().manual_seed(0))
    gated = gate(torch.ones(1, 8, 6, 4, 5), features)
    torch.testing.assert_close(gated, gated[:, :, :1].expand_as(gated))
    assert gated.std(dim=(3, 4)).min() > 0


@torch.no_grad()
def test_the_left_image_alone_steers_the_volume(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    """The right image takes part in the likeness alone: gates, states, context and superpixels are the left one's."""
    left, right = pair
    seen: list[tuple[Tensor, ...]] = []
    hooks = [
        part.register_forward_pre_hook(lambda _, given: seen.append(given[1:]))
        for part in (network.corr_feature_att, network.cost_agg)
    ]
    first, second, _ = (network.encode(*images) for images in ((left, right), (left, left), (right, right)))
    for hook in hooks:
        hook.remove()
    gates, of_first, of_second, of_swapped = seen[0][0], seen[1], seen[3], seen[5]
    torch.testing.assert_close(gates, seen[2][0], rtol=1e-4, atol=1e-4)
    for mine, same, other in zip(of_first, of_second, of_swapped, strict=True):
        torch.testing.assert_close(mine, same, rtol=1e-4, atol=1e-4)
        assert (mine - other).abs().mean() > 1e-2
    torch.testing.assert_close(first.stem, second.stem, rtol=1e-4, atol=1e-4)
    for mine, same in zip(
        (*first.hidden, *first.context, *first.attention), (*second.hidden, *second.context, *second.attention),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(mine, same, rtol=1e-4, atol=1e-4)
    assert (first.geometry[0] - second.geometry[0]).abs().mean() > 1e-5
