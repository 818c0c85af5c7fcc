"""Pictures of any size through Restormer's own steps: padded and cut to sizes that its dims allow, and back again."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from exporter import host, registry
from exporter.spec import ModelDef
from model_defs import restoration


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Random 8-bit pixels ``(H, W, C)``: a pixel in the wrong place is seen."""
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def prepared(definition: ModelDef, values: host.Values) -> host.Values:
    return host.apply(definition.before, values, definition.dims)


def returned(definition: ModelDef, values: host.Values) -> np.ndarray:
    """What the steps after the graph make of a graph that gives back the first three channels it takes."""
    outputs = {**host.records(values), "restored": values["image"][:, :3]}
    return host.apply(definition.after, outputs, definition.dims)["image"]


def test_the_dims_are_what_the_shapes_below_are_of() -> None:
    assert [(d.min, d.max, d.unit) for d in registry.model("restormer").dims] == [(64, 256, 8)] * 2


@pytest.mark.parametrize(
    ("size", "dims", "wanted"),
    [
        ((300, 500), (), (6, 3, 256, 256)),
        ((100, 1000), (), (5, 3, 104, 256)),
        ((40, 41), (), (1, 3, 64, 64)),
        ((256, 256), (), (1, 3, 256, 256)),
        ((257, 64), (), (2, 3, 256, 64)),
        ((1, 1), (), (1, 3, 64, 64)),
        ((40, 41), ("H=64", "W=64"), (1, 3, 64, 64)),
        # 104 rows start at 0, 32 and 40; 200 columns at 0, 32, 64, 96, 128 and 136.
        ((100, 200), ("H=64", "W=64"), (18, 3, 64, 64)),
        # Widths in steps of 64 alone.
        ((100, 300), ("W=64:128:256:64",), (2, 3, 104, 256)),
        ((100, 100), ("W=64:128:256:64",), (1, 3, 104, 128)),
    ],
)
def test_every_picture_becomes_what_the_graph_takes_and_comes_back_as_large(
    size: tuple[int, int], dims: tuple[str, ...], wanted: tuple[int, ...]
) -> None:
    definition = registry.model("restormer").with_dims(dims)
    given = picture(*size)
    values = prepared(definition, {"image": given})
    assert values["image"].shape == wanted and values["image"].dtype == np.float32
    for dim, side in zip(definition.dims, values["image"].shape[-2:], strict=True):
        assert dim.allows(side)
    restored = returned(definition, values)
    assert restored.shape == (1, 3, *size)
    np.testing.assert_allclose(restored[0], given.transpose(2, 0, 1) / 255, atol=1e-6)


def test_tiles_meet_at_their_overlap() -> None:
    """Neighbours hold the same pixels where they overlap, by at least 32 rows and columns."""
    tiles = prepared(registry.model("restormer"), {"image": picture(256, 400)})["image"]
    # Columns 0 to 255 and 144 to 399: 112 are in both.
    assert tiles.shape == (2, 3, 256, 256)
    assert np.array_equal(tiles[0, ..., 144:], tiles[1, ..., :112])


def test_two_views_are_cut_alike() -> None:
    definition = registry.model("restormer", {"variant": "dual-pixel"})
    views = np.random.default_rng(0).random((1, 6, 300, 500), dtype=np.float32)
    values = prepared(definition, {"image": views})
    assert values["image"].shape == (6, 6, 256, 256)
    np.testing.assert_allclose(returned(definition, values), views[:, :3], atol=1e-6)


def test_the_definition_says_that_tiles_change_the_answer() -> None:
    said = " ".join(str(inspect.getdoc(restoration.restormer)).split())
    assert "overlapping tiles" in said and "not the whole picture's" in said
    assert all("tiles" in dim.why for dim in registry.model("restormer").dims)
