"""The trunk is MobileNetV2 in timm's names: timm's own weights go in as they are, and the same features come out."""

from __future__ import annotations

import pytest
import torch

from exporter.define import seed_weights
from exporter.errors import Incomplete

from .parts import module


@torch.no_grad()
def test_timms_weights_give_timms_features() -> None:
    try:
        timm = module("_timm").library()
    except Incomplete as absent:
        pytest.skip(str(absent))
    theirs = timm.create_model("mobilenetv2_100", pretrained=False)
    seed_weights(theirs, 0)
    theirs.eval()
    ours = module("trunk").Features().eval()
    # Stride 32 is reached by the sixth stage; what timm has behind it is not used.
    state = {key: value for key, value in theirs.state_dict().items() if key.startswith(("conv_stem", "bn1", "blocks"))}
    state = {_ours(key): value for key, value in state.items() if not key.startswith("blocks.6.")}
    decoder = {key: value for key, value in ours.state_dict().items() if key.startswith(("deconv", "conv4"))}
    ours.load_state_dict({**decoder, **state}, strict=True)
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = ours.trunk(x)
    wanted, y = [], theirs.bn1(theirs.conv_stem(x))
    for stage, block in enumerate(theirs.blocks[:6]):
        y = block(y)
        wanted += [y] if stage in (1, 2, 4, 5) else []
    assert [y.shape for y in found] == [y.shape for y in wanted]
    for mine, his in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-5)


def _ours(key: str) -> str:
    """The stages ``blocks.0`` to ``blocks.5`` are grouped by stride here."""
    if not key.startswith("blocks."):
        return key
    _, stage, rest = key.split(".", 2)
    group = {"0": "block0.0", "1": "block1.0", "2": "block2.0", "3": "block3.0", "4": "block3.1", "5": "block4.0"}
    return f"{group[stage]}.{rest}"


@torch.no_grad()
def test_features_are_at_strides_4_to_32() -> None:
    maps = module("trunk").Features().eval()(torch.zeros(2, 3, 64, 96))
    wanted = [(2, 48, 16, 24), (2, 64, 8, 12), (2, 192, 4, 6), (2, 160, 2, 3)]
    assert [tuple(x.shape) for x in maps] == wanted
