"""Selective-RAFT as three graphs: driven from outside they are the network, for every number of iterations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter import define, preflight, program, registry
from exporter.program import Program
from exporter.spec import ModelDef
from tests.fakes.lab import Here

from .specimens import TARGETS, built, meta, pair

NAME = "selective-raft-loop"


def driven(definition: ModelDef, network: torch.nn.Module, values: dict[str, Any]) -> dict[str, Any]:
    """The program of a definition over its modules, as any host would run it."""
    for part in definition.parts:
        piece = part.module(network)
        for _ in range(values[part.repeat] if isinstance(part.repeat, str) else part.repeat):
            outputs = piece(*(values[tensor.name] for tensor in part.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            found = dict(zip((tensor.name for tensor in part.outputs), outputs, strict=True))
            values |= found | {state.input: found[state.output] for state in part.state}
    return {tensor.name: values[tensor.name] for tensor in definition.outputs}


@torch.no_grad()
def test_three_pieces_and_a_loop_are_the_network() -> None:
    definition, (left, right) = registry.model(NAME, {"attention_map": True}), pair(64, 64)
    network = built(NAME, attention_map=True)
    deployed = definition.deploy(network)
    for iterations in (1, 3):
        found = driven(definition, deployed, {"left": left, "right": right, "iterations": iterations})
        wanted = network(left, right, iterations=iterations)
        assert [tensor.name for tensor in definition.outputs][:2] == ["low", "up"]
        for tensor, y in zip(definition.outputs, wanted, strict=True):
            torch.testing.assert_close(found[tensor.name], y, rtol=0, atol=1e-10 * y.abs().max().item())


def test_declared_shapes_are_those_of_the_pieces() -> None:
    definition = registry.model(NAME)
    network = meta(NAME)
    deployed = definition.deploy(network)
    sizes = {"H": 64, "W": 96, "iterations": 1}
    for part in definition.parts:
        with torch.device("meta"):
            outputs = part.module(deployed)(*(torch.empty(tensor.sized(sizes)) for tensor in part.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        shapes = {tensor.name: tensor.sized(sizes) for tensor in part.outputs}
        assert dict(zip(shapes, (tuple(y.shape) for y in outputs), strict=True)) == shapes


def test_one_set_of_weights_serves_both_forms() -> None:
    loop, unrolled = (define.weighted(registry.model(name), None, 0)[1] for name in (NAME, "selective-raft"))
    assert loop.digest == unrolled.digest


def opened(target: str, folder: Path) -> tuple[ModelDef, Program, Any]:
    """The loop with seeded weights, traced and compiled for a target."""
    definition = registry.model(NAME)
    build = {"model": NAME, "options": {}, "dims": [], "checkpoint": None, "seed": 0}
    graphs = {name: folder / f"{name}.onnx" for name in definition.graphs}
    outputs = {name: str(path) for name, path in graphs.items()}
    Here().run("trace", "exporter.trace:stage", {"build": build, "outputs": outputs})
    options, whole = preflight.options_of(definition, "fp32", 1), program.program_of(definition)
    kind = registry.target(target)
    artifact = program.compile_graphs(kind, whole, graphs, options, folder)
    return definition, whole, program.open_artifact(kind, whole, artifact, options)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("target", TARGETS)
def test_the_artifact_errs_like_eager_after_every_iteration(target: str, tmp_path: Path) -> None:
    """The end-point error against the float64 network, iteration by iteration up to 32: no drift of its own."""
    images = pair(64, 64)
    network = built("selective-raft", iterations=32, predictions="all")
    exact = network(*images)[-1].numpy()
    eager = network.float()(*(image.float() for image in images))[-1].numpy()
    feeds = {name: image.float().numpy() for name, image in zip(("left", "right"), images, strict=True)}
    _, _, runner = opened(target, tmp_path)
    curve = []
    with runner:
        for iterations in range(1, 33):
            found = runner.infer({**feeds, "iterations": np.array(iterations)}, check_inputs=False)["up"]
            curve.append([np.abs(y - exact[iterations - 1]).mean() for y in (found[0], eager[iterations - 1])])
    artifact, own = np.array(curve).T
    assert np.abs(exact[-1]).mean() > 1.0, "a flow that stays at zero would show nothing"
    assert (artifact <= 4 * own).all(), np.round(artifact / own, 2)
    assert artifact.max() < 1e-3, "thousandths of a pixel"
