"""The networks as published: keys, shapes, parameters, what they return, and that they follow the images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter import checkpoint
from model_defs.stereo.encoder import normalisation
from model_defs.stereo.raft import VARIANTS, RaftStereo, Shape

from .specimens import built, meta, pair

NETWORKS = [("raft-stereo", {}), ("raft-stereo", {"variant": "realtime"}), ("selective-raft", {})]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "options", "keys", "count", "parts"),
    [
        ("raft-stereo", {}, 337, 11_116_176, {"fnet": 1_066_848, "cnet": 4_321_184}),
        ("raft-stereo", {"variant": "realtime"}, 309, 9_865_568, {"cnet": 4_321_184}),
        (
            "selective-raft", {}, 352, 11_654_706,
            {
                "fnet": 1_066_848, "cnet": 4_321_184, "sam": 98, "cam": 2_048, "update_block.encoder": 225_855,
                "update_block.disp_head": 297_473, "update_block.mask": 332_176,
            },
        ),
        ("selective-raft-loop", {}, 352, 11_654_706, {}),
    ],
)  # fmt: skip
def test_keys_and_parameters_are_the_published_ones(
    name: str, options: dict[str, Any], keys: int, count: int, parts: dict[str, int]
) -> None:
    network = meta(name, **options)
    assert len(network.state_dict()) == keys and parameters(network) == count
    assert {part: parameters(network.get_submodule(part)) for part in parts} == parts


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        (
            "raft-stereo", {"variant": "realtime"},
            {
                "conv2.0.conv1.weight": (128, 128, 3, 3), "conv2.0.conv2.weight": (128, 128, 3, 3),
                "conv2.1.weight": (256, 128, 3, 3), "update_block.mask.2.weight": (576, 256, 1, 1),
                "update_block.gru16.convz.weight": (128, 256, 3, 3),
                "update_block.gru08.convz.weight": (128, 384, 3, 3),
                "update_block.encoder.convf1.weight": (64, 2, 7, 7),
            },
        ),
        (
            "raft-stereo", {},
            {
                "update_block.encoder.convf1.weight": (64, 2, 7, 7),
                "update_block.encoder.conv.weight": (126, 128, 3, 3),
                "update_block.gru32.convz.weight": (128, 256, 3, 3),
                "update_block.gru16.convq.weight": (128, 384, 3, 3),
                "update_block.gru08.convr.weight": (128, 384, 3, 3),
                "update_block.flow_head.conv2.weight": (2, 256, 3, 3),
                "context_zqr_convs.2.weight": (384, 128, 3, 3), "cnet.outputs32.1.weight": (128, 128, 3, 3),
            },
        ),
        (
            "selective-raft", {},
            {
                "fnet.conv1.weight": (64, 3, 7, 7), "fnet.conv2.weight": (256, 128, 1, 1),
                "fnet.layer2.0.downsample.0.weight": (96, 64, 1, 1), "cnet.outputs08.0.1.weight": (128, 128, 3, 3),
                "cnet.outputs16.1.0.norm2.running_var": (128,), "cnet.layer5.0.norm3.weight": (128,),
                "cnet.layer5.0.downsample.1.weight": (128,), "sam.samconv.weight": (1, 2, 7, 7),
                "cam.fc.0.weight": (8, 128, 1, 1), "cam.fc.2.weight": (128, 8, 1, 1),
                "update_block.encoder.convc1.weight": (64, 36, 1, 1),
                "update_block.encoder.conv.weight": (127, 128, 3, 3),
                "update_block.gru16.small_gru.convz.weight": (128, 384, 1, 1),
                "update_block.gru08.large_gru.convq.weight": (128, 512, 3, 3),
                "update_block.gru04.large_gru.convr.weight": (128, 512, 3, 3),
                "update_block.disp_head.conv2.weight": (1, 256, 3, 3), "update_block.mask.0.weight": (256, 128, 3, 3),
                "update_block.mask.2.weight": (144, 256, 1, 1),
            },
        ),
    ],
)  # fmt: skip
def test_shapes_are_the_published_ones(name: str, options: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    state = meta(name, **options).state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_a_strided_normalisation_is_one_module_under_two_names(name: str, options: dict[str, Any]) -> None:
    state = meta(name, **options).state_dict(keep_vars=True)
    pairs = [(key, key.replace("norm3", "downsample.1")) for key in state if ".norm3." in key]
    assert Counter(key.split(".norm3")[0] for key, _ in pairs).keys() == {f"cnet.layer{at}.0" for at in (2, 3, 4, 5)}
    assert all(state[first] is state[second] for first, second in pairs)
    assert not any("norm" in key for key in state if key.startswith("fnet")), "instance norms have no weights"


def test_the_recurrent_units_have_their_published_number_of_parameters() -> None:
    block = meta("selective-raft").update_block
    assert sum(parameters(block.get_submodule(f"gru{level}")) for level in ("16", "08", "04")) == 5_409_024


@pytest.mark.parametrize("name", ["raft-stereo", "selective-raft"])
def test_a_published_checkpoint_loads_with_its_prefix(name: str, tmp_path: Path) -> None:
    """The published files are the bare state dict of a ``DataParallel`` model."""
    network = built(name, iterations=1)
    file = tmp_path / "sceneflow.pth"
    torch.save({f"module.{key}": value + 1 for key, value in network.state_dict().items()}, file)
    wanted = {key: value + 1 for key, value in network.state_dict().items()}
    checkpoint.load(network, file)
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("raft-stereo", {}, [(1, 2, 16, 24), (1, 1, 64, 96)]),
        ("raft-stereo", {"variant": "realtime", "max_width": 160}, [(1, 2, 8, 20), (1, 1, 64, 160)]),
        (
            "selective-raft", {"attention_map": True, "predictions": "all"},
            [(1, 1, 16, 24), (1, 1, 64, 96), (1, 1, 16, 24), (1, 1, 8, 12), (1, 1, 4, 6), (2, 1, 64, 96)],
        ),
    ],
)  # fmt: skip
def test_outputs_have_the_published_shapes(name: str, options: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    assert [tuple(y.shape) for y in without_memory(meta(name, iterations=2, **options), 64, shapes[1][-1])] == shapes


def without_memory(network: nn.Module, height: int, width: int) -> tuple[Tensor, ...]:
    """The outputs of a network on the meta device: shapes, no arithmetic."""
    with torch.device("meta"):
        outputs: tuple[Tensor, ...] = network(torch.empty(1, 3, height, width), torch.empty(1, 3, height, width))
    return outputs


@torch.no_grad()
def test_nothing_moves_across_the_lines_of_a_rectified_pair() -> None:
    images = [image.float() for image in pair(64, 64)]
    low, up = built("raft-stereo", iterations=1).float()(*images)
    assert low[:, 0].abs().max() > 0 and not low[:, 1].any()
    assert torch.isfinite(up).all() and up.std() > 0


@torch.no_grad()
def test_every_prediction_is_that_of_a_run_with_as_many_iterations() -> None:
    images, network = pair(64, 64), built("selective-raft", iterations=2, predictions="all")
    _, up, every = network(*images)
    assert torch.equal(every[1:], up) and not torch.allclose(every[:1], up)
    assert torch.equal(network(*images, iterations=1)[1], every[:1])


@pytest.mark.parametrize(
    ("shape", "calls"),
    [
        (VARIANTS["realtime"], ["gru16", "gru16", "gru08"] * 2),
        (Shape(slow_fast=True), ["gru32", "gru32", "gru16", "gru32", "gru16", "gru08"] * 2),
        (Shape(), ["gru32", "gru16", "gru08"] * 2),
        (Shape(layers=1), ["gru08"] * 2),
    ],
    ids=["realtime", "three-slow-fast", "base", "one"],
)
def test_the_coarser_units_run_more_often_where_that_is_asked_for(shape: Shape, calls: list[str]) -> None:
    with torch.device("meta"):
        network, seen = RaftStereo(shape, 2), []
    for name in ("gru08", "gru16", "gru32"):
        network.update_block.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    without_memory(network, 64, 128)
    assert seen == calls


def test_a_normalisation_of_another_name_is_refused() -> None:
    with pytest.raises(KeyError, match="instnace"):
        normalisation("instnace", 8)


@pytest.mark.parametrize("layers", [0, 4])
def test_another_number_of_levels_is_refused(layers: int) -> None:
    with pytest.raises(ValueError, match="there are 1, 2 or 3"):
        Shape(layers=layers)
