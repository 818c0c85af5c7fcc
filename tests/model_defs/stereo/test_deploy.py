"""The deployed forms are the published functions, and have lost what they are said to have lost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from exporter import registry

from .specimens import built, drawn, meta, pair


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options", "width"),
    [
        ("raft-stereo", {}, 64),
        ("raft-stereo", {"variant": "realtime"}, 128),
        ("selective-raft", {"attention_map": True, "predictions": "all"}, 64),
        ("selective-raft", {"sampler": "grid"}, 64),
        pytest.param("selective-raft", {"layers": 1}, 64, marks=pytest.mark.slow),
        pytest.param("selective-raft", {"layers": 2}, 96, marks=pytest.mark.slow),
    ],
)
def test_a_deployed_network_is_the_published_one(name: str, options: dict[str, Any], width: int) -> None:
    network = built(name, iterations=2, **options)
    deployed = registry.model(name, {"iterations": 2, **options}).deploy(network)
    images = pair(64, width)
    for wanted, found in zip(network(*images), deployed(*images), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10 * wanted.abs().max().item())


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("raft-conv-gru", (128, 256)),
        ("context-conv-gru", (128, 128, 128, 128, 256)),
        ("selective-conv-gru", (1, 128, 256)),
        ("convex-upsample", (1, 144)),
        ("correlation-lookup", (256, 256, 1)),
    ],
)
def test_a_deployed_block_is_the_published_one(name: str, channels: tuple[int, ...]) -> None:
    block = built(name)
    inputs = [drawn(1, count, 5, 24, seed=at) for at, count in enumerate(channels)]
    found, wanted = registry.model(name).deploy(block)(*inputs), block(*inputs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["raft-stereo", "selective-raft"])
def test_deploying_leaves_the_published_network_alone(name: str) -> None:
    network = built(name, iterations=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    deployed = registry.model(name).deploy(network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in deployed.modules())


def operators(network: nn.Module) -> set[str]:
    """The operators that a network is captured in, without the overload's name."""
    with torch.device("meta"):
        images = tuple(torch.empty(1, 3, 64, 128) for _ in range(2))
    program = torch.export.export(network, images, strict=False)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    return {target.split(".")[1] for target in targets if target.startswith("aten.")}


@pytest.mark.parametrize("name", ["raft-stereo", "selective-raft"])
def test_what_the_deployed_form_has_lost(name: str) -> None:
    lost = {"grid_sampler", "im2col", "batch_norm"}
    network = meta(name, iterations=1)
    assert operators(network) >= lost
    assert not operators(registry.model(name).deploy(network)) & lost
    sampled = registry.model(name, {"sampler": "grid"}).deploy(network)
    assert operators(sampled) & lost == {"grid_sampler"}, "the sampler alone stays where it is asked for"


def macs(network: nn.Module) -> float:
    left, right = (torch.empty(1, 3, 64, 64, device="meta") for _ in range(2))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(left, right)
    return counter.get_total_flops() / 2


def test_what_units_take_of_the_context_is_computed_once() -> None:
    """A quarter of the arithmetic of the finest unit leaves the loop: 21 % of an iteration."""
    deploy = registry.model("selective-raft").deploy
    published, deployed = (
        [macs(form(meta("selective-raft", iterations=count))) for count in (1, 2)] for form in (nn.Identity(), deploy)
    )
    per_iteration = [two - one for one, two in (published, deployed)]
    assert per_iteration[1] / per_iteration[0] == pytest.approx(0.79, abs=0.005)
    assert deployed[0] == published[0], "of one iteration nothing can be saved"
