"""What the documents and the published code do wrong in this part, and what happens here."""

from __future__ import annotations

from unittest import mock

import torch
from torch import Tensor, nn

from exporter import registry

from .parts import module


@torch.no_grad()
def test_the_attention_is_computed_once_and_not_in_every_iteration(
    network: nn.Module, pair: tuple[Tensor, Tensor]
) -> None:
    """The document's attention ``A_t`` has an index of time; it depends on the context alone."""
    with (
        mock.patch.object(network.sam, "forward", side_effect=network.sam.forward) as spatial,
        mock.patch.object(network.cam, "forward", side_effect=network.cam.forward) as channel,
    ):
        network(*pair, iterations=3)
    assert spatial.call_count == channel.call_count == 3  # one per stride


@torch.no_grad()
def test_the_attention_weighs_the_small_kernel(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    """``A small + (1 - A) large``: at 1 the large kernels change nothing, at 0 the small ones."""
    encoded = network.encode(*pair)
    for value, silent in ((1.0, "large_gru"), (0.0, "small_gru")):
        attention = tuple(torch.full_like(a, value) for a in encoded.attention)
        forced = encoded._replace(attention=attention)
        (hidden, _, _) = network.update(forced, forced.hidden, forced.disparity)
        units = [getattr(network.update_block, f"gru{level}") for level in ("04", "08", "16")]
        gone = [mock.patch.object(getattr(u, silent), "forward", lambda h, x: torch.zeros_like(h)) for u in units]
        for patch in gone:
            patch.start()
        without = network.update(forced, forced.hidden, forced.disparity)[0]
        for patch in gone:
            patch.stop()
        for mine, other in zip(hidden, without, strict=True):
            torch.testing.assert_close(mine, other)


@torch.no_grad()
def test_an_iteration_gives_new_states_and_changes_none(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    """The published update writes the new states into the list that it was given."""
    encoded = network.encode(*pair)
    before = [h.clone() for h in encoded.hidden]
    first = network.update(encoded, encoded.hidden, encoded.disparity)
    second = network.update(encoded, encoded.hidden, encoded.disparity)
    for kept, now in zip(before, encoded.hidden, strict=True):
        assert torch.equal(kept, now)
    assert torch.equal(first[2], second[2])


def test_nothing_depends_on_values_that_a_graph_cannot_hold(network: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    """The published lookup asserts that all rows of a grid are equal, by ``torch.unique``: no graph can hold it."""
    lookup = module("volume").GeometryLookup()
    given = torch.zeros(1, 8, 16, 3, 6), torch.zeros(1, 6, 3, 6), torch.zeros(1, 1, 3, 6)
    program = torch.export.export(lookup, given)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in names if "unique" in name or "grid" in name or "item" in name]


def test_the_volume_is_built_without_writing_into_it() -> None:
    """The published volume is zeros with slices assigned: scatter nodes in a graph."""
    definition = registry.model("group-wise-correlation", {"channels": 16, "disparities": 4})
    given = tuple(torch.zeros(t.sized(definition.opt_sizes())) for t in definition.inputs)
    program = torch.export.export(definition.build(), given).run_decompositions()
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert names and not [name for name in names if "scatter" in name or "copy" in name or "_put" in name]


@torch.no_grad()
def test_a_narrow_image_gives_numbers(network: nn.Module) -> None:
    """The published sampler divides by the width less one. At 64 pixels the volume is deeper than the image is wide."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(1, 3, 64, 64, generator=generator) * 255 for _ in range(2))
    disparity = network(left, right, iterations=2)[0]
    assert torch.isfinite(disparity).all() and disparity.std() > 0
