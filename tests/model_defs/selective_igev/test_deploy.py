"""The deployed form computes the same function, and the three graphs of the loop are the network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from exporter import define, registry
from exporter.spec import ModelDef

from .parts import module

deploy = module("deploy")


@torch.no_grad()
def test_the_deployed_form_is_the_network(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    # In double, so that nothing but a wrong rewrite can differ.
    double, images = copy.deepcopy(network).double(), [image.double() for image in pair]
    wanted = double(*images, iterations=2)[0]
    found = deploy.deploy_network(double)(*images, iterations=2)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10 * wanted.abs().max().item())


def test_the_deployed_form_has_no_batch_normalisation_that_runs(network: nn.Module) -> None:
    deployed = deploy.deploy_network(network)
    kinds = nn.BatchNorm2d | nn.BatchNorm3d
    left = [n for n, part in deployed.named_modules(remove_duplicate=False) if isinstance(part, kinds)]
    assert left == ["cost_agg.conv1_up.bn"], "it is in no equation"
    assert deployed.classifier.bias is not None


def test_deploying_changes_nothing_of_the_network(network: nn.Module) -> None:
    before = define.weights_digest(network)
    deploy.deploy_network(network)
    assert define.weights_digest(network) == before and not network.training


@torch.no_grad()
@pytest.mark.parametrize("block", ["cost-aggregation", "superpixel-upsample"])
def test_a_deployed_block_is_the_block(block: str) -> None:
    definition = registry.model(block)
    built = define.weighted(definition, None, 0)[0].double()
    generator = torch.Generator().manual_seed(0)
    sizes = definition.opt_sizes()
    inputs = [torch.rand(t.sized(sizes), generator=generator, dtype=torch.float64) for t in definition.inputs]
    deployed = definition.deploy(built)  # type: ignore[misc]
    torch.testing.assert_close(deployed(*inputs), built(*inputs), rtol=1e-10, atol=1e-10)


def run(definition: ModelDef, deployed: nn.Module, values: dict[str, Tensor], iterations: int) -> dict[str, Tensor]:
    """The host loop in its plainest form: one namespace, parts in order, states assigned after each run."""
    for part in definition.parts:
        piece = part.module(deployed)
        for _ in range(iterations if part.repeat == "iterations" else 1):
            found = piece(*(values[t.name] for t in part.inputs))
            found = found if isinstance(found, tuple) else (found,)
            values.update(zip([t.name for t in part.outputs], found, strict=True))
            values.update({s.input: values[s.output] for s in part.state})
    return values


@torch.no_grad()
@pytest.mark.parametrize("iterations", [1, 3])
def test_the_three_graphs_are_the_network(iterations: int, network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    definition = registry.model("selective-igev-loop", {"attention_map": True})
    double = copy.deepcopy(network).double()
    double.attention_map = True
    given = {side: image.double() for side, image in zip(("left", "right"), pair, strict=True)}
    wanted = double(*given.values(), iterations=iterations)
    found = run(definition, deploy.deploy_network(double), given, iterations)
    assert [tensor.name for tensor in definition.outputs] == ["disparity", "attention04", "attention08", "attention16"]
    for tensor, y in zip(definition.outputs, wanted, strict=True):
        torch.testing.assert_close(found[tensor.name], y, rtol=0, atol=1e-10 * y.abs().max().item())


@torch.no_grad()
def test_the_tensors_between_the_graphs_have_the_shapes_that_are_declared(
    network: nn.Module, pair: tuple[Tensor, Tensor]
) -> None:
    definition = registry.model("selective-igev-loop")
    given = dict(zip(("left", "right"), pair, strict=True))
    values = run(definition, deploy.deploy_network(network), given, 1)
    declared = [t for part in definition.parts for t in (*part.inputs, *part.outputs)]
    wanted = {t.name: t.sized({"H": 64, "W": 96}) for t in declared}
    assert {name: tuple(value.shape) for name, value in values.items()} == wanted
