"""The networks are wired as published: against plain functions of their weights that share no code with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from . import oracle
from .specimens import built, pair


def assert_same(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for mine, his in zip(found, wanted, strict=True):
        assert his.std() > 0, "a constant would show nothing"
        torch.testing.assert_close(mine, his, rtol=0, atol=1e-10 * his.abs().max().item())


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options", "forward", "width"),
    [
        ("raft-stereo", {}, oracle.raft_stereo, 64),
        ("raft-stereo", {"variant": "realtime"}, oracle.realtime, 128),
        *(
            ("selective-raft", {"layers": layers, **every}, partial(oracle.selective_raft, layers=layers), 64)
            for every in ({"attention_map": True, "predictions": "all"},)
            for layers in (1, 2, 3)
        ),
    ],
    ids=["raft-stereo", "realtime", "selective-raft-1", "selective-raft-2", "selective-raft"],
)
def test_a_network_is_its_equations(
    name: str, options: dict[str, Any], forward: Callable[..., tuple[Tensor, ...]], width: int
) -> None:
    network, images = built(name, iterations=2, **options), pair(64, width)
    assert_same(network(*images), forward(network.state_dict(), *images, 2))
