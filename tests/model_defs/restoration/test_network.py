"""Keys, shapes and counts of the published checkpoints, and what the network does as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter import checkpoint, define, registry
from exporter.errors import Refused

from .specimens import SMALL


def meta(**options: Any) -> nn.Module:
    with torch.device("meta"):
        return registry.model("restormer", options).build()


def small(**options: Any) -> nn.Module:
    return define.weighted(registry.model("restormer", {**SMALL, **options}), None, 0)[0].double()


def image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "parameters", "keys"),
    [
        ({}, 26_126_644, 494),
        ({"variant": "denoise"}, 26_111_668, 406),
        ({"variant": "gray"}, 26_109_076, 406),
        ({"variant": "dual-pixel"}, 26_132_548, 495),
        ({"bias": True}, 26_266_423, 761),
    ],
)
def test_counts_of_the_published_variants(options: dict[str, Any], parameters: int, keys: int) -> None:
    module = meta(**options)
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert len(module.state_dict()) == keys


def test_keys_and_shapes_of_the_checkpoint() -> None:
    state = {name: tuple(tensor.shape) for name, tensor in meta().state_dict().items()}
    wanted = {
        "patch_embed.proj.weight": (48, 3, 3, 3),
        "encoder_level1.3.norm1.body.weight": (48,),
        "encoder_level1.3.norm1.body.bias": (48,),
        "encoder_level2.5.attn.temperature": (2, 1, 1),
        "encoder_level2.5.attn.qkv.weight": (288, 96, 1, 1),
        "encoder_level2.5.attn.qkv_dwconv.weight": (288, 1, 3, 3),
        "encoder_level3.5.attn.project_out.weight": (192, 192, 1, 1),
        "latent.7.norm2.body.weight": (384,),
        "latent.7.ffn.project_in.weight": (2042, 384, 1, 1),
        "latent.7.ffn.dwconv.weight": (2042, 1, 3, 3),
        "latent.7.ffn.project_out.weight": (384, 1021, 1, 1),
        "down1_2.body.0.weight": (24, 48, 3, 3),
        "down3_4.body.0.weight": (96, 192, 3, 3),
        "up4_3.body.0.weight": (768, 384, 3, 3),
        "up2_1.body.0.weight": (192, 96, 3, 3),
        "reduce_chan_level3.weight": (192, 384, 1, 1),
        "reduce_chan_level2.weight": (96, 192, 1, 1),
        "decoder_level1.3.attn.temperature": (1, 1, 1),
        "decoder_level1.3.attn.qkv.weight": (288, 96, 1, 1),
        "refinement.3.attn.qkv.weight": (288, 96, 1, 1),
        "output.weight": (3, 96, 3, 3),
    }
    assert {name: state.get(name) for name in wanted} == wanted
    assert tuple(meta(variant="dual-pixel").state_dict()["skip_conv.weight"].shape) == (96, 48, 1, 1)
    free = meta(variant="denoise").state_dict()
    assert set(free) == {name for name in state if not name.endswith("body.bias")}


def test_a_published_file_loads_strictly(tmp_path: Path) -> None:
    """The authors save ``{"params": state dict}``."""
    published, fresh = small(), small()
    with torch.no_grad():
        for tensor in fresh.parameters():
            tensor.zero_()
    file = tmp_path / "deraining.pth"
    torch.save({"params": published.state_dict()}, file)
    checkpoint.load(fresh, file)
    assert define.weights_digest(fresh) == define.weights_digest(published)
    with pytest.raises(Refused, match=r"norm1\.body\.bias"):
        checkpoint.load(small(variant="denoise"), file)


@torch.no_grad()
@pytest.mark.parametrize(("variant", "inputs", "outputs"), [("color", 3, 3), ("gray", 1, 1), ("dual-pixel", 6, 3)])
def test_the_restored_image_has_the_size_of_the_given_one(variant: str, inputs: int, outputs: int) -> None:
    assert small(variant=variant)(image(2, inputs, 16, 24)).shape == (2, outputs, 16, 24)


@torch.no_grad()
def test_the_image_is_added_to_the_residual() -> None:
    """With the last convolution at zero the image itself is left; of two views nothing is."""
    single, double = small(), small(variant="dual-pixel")
    for module in (single, double):
        module.output.weight.zero_()
    given = image(1, 3, 16, 16)
    assert torch.equal(single(given), given)
    assert not double(image(1, 6, 16, 16)).any()


@torch.no_grad()
def test_two_views_add_the_embedding_before_the_last_convolution() -> None:
    module, given = small(variant="dual-pixel"), image(1, 6, 16, 16)
    whole = module(given)
    skipped = module.output(module.skip_conv(module.patch_embed(given)))
    module.skip_conv.weight.zero_()
    torch.testing.assert_close(whole - module(given), skipped)
