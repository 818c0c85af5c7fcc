"""Pad and crop, tile and untile: each pair gives back what it took."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import host
from exporter.errors import Refused
from exporter.host import tiles
from exporter.spec import Dim, HostStep

RNG = np.random.default_rng(0)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RNG.uniform(0, 1, (1, channels, height, width)).astype(np.float32)


@pytest.mark.parametrize("sides", ["end", "both"])
@pytest.mark.parametrize("mode", ["reflect", "edge"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 15), (1, 3), (61, 33)])
def test_crop_undoes_pad(height: int, width: int, mode: str, sides: str) -> None:
    value = picture(height, width)
    padded = tiles.pad({"x": value}, of=["x"], multiple=8, at_least=16, mode=mode, sides=sides)
    assert padded["x"].shape[-2] % 8 == padded["x"].shape[-1] % 8 == 0
    assert min(padded["x"].shape[-2:]) >= 16 and padded["x"].shape[-1] < max(width + 8, 17)
    assert padded["x.size"].tolist()[2:] == [height, width] and padded["x.size"].dtype == np.int64
    found = tiles.crop({**padded, "y": padded["x"]}, of="y", like="x")["y"]
    np.testing.assert_array_equal(found, value)


def test_padding_is_that_of_numpy_and_stands_where_it_is_said_to() -> None:
    value = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    end = tiles.pad({"x": value}, of="x", multiple=4)["x"]
    np.testing.assert_array_equal(end[0, 0], [[0, 1, 2, 1], [3, 4, 5, 4], [0, 1, 2, 1], [3, 4, 5, 4]])
    both = tiles.pad({"x": value}, of="x", multiple=4, mode="edge", sides="both")
    np.testing.assert_array_equal(both["x"][0, 0], [[0, 1, 2, 2], [0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5]])
    assert both["x.size"].tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize("scale", [0.25, 1, 2, 4])
def test_crop_follows_the_scale_of_the_output(scale: float) -> None:
    padded = tiles.pad({"x": picture(16, 24)}, of="x", multiple=32, sides="both")
    height, width = padded["x"].shape[-2:]
    output = np.arange(int(height * scale) * int(width * scale)).reshape(int(height * scale), -1)
    found = tiles.crop({**padded, "y": output}, of="y", like="x", scale=scale)["y"]
    assert found.shape == (int(16 * scale), int(24 * scale))
    assert found[0, 0] == output[int(8 * scale), int(4 * scale)]


def test_without_a_record_nothing_is_cut() -> None:
    assert tiles.crop({"y": picture(4, 4)}, of="y", like="x") == {}
    assert tiles.untile({"y": picture(4, 4)}, of="y", like="x") == {}


@pytest.mark.parametrize("options", [{"mode": "zeros"}, {"sides": "start"}, {"multiple": 0}])
def test_an_unknown_way_to_pad_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(Refused) as caught:
        tiles.pad({"x": picture(4, 4)}, of="x", **{"multiple": 8, **options})  # type: ignore[arg-type]
    assert caught.value.code == "unknown-step"


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(2, 16), overlap=st.integers(0, 15),
    scale=st.sampled_from([1, 2]),
)  # fmt: skip
def test_untile_gives_back_what_was_cut(height: int, width: int, size: int, overlap: int, scale: int) -> None:
    overlap = min(overlap, size - 1)
    value = picture(height, width, 2)
    cut = tiles.tile({"x": value}, of="x", size=size, overlap=overlap)
    if max(height, width) <= size:
        assert cut == {}
        return
    stack = cut["x"]
    assert stack.shape[1:] == (2, min(size, height), min(size, width)) and len(stack) > 1
    enlarged = stack.repeat(scale, -1).repeat(scale, -2)
    found = tiles.untile({**cut, "y": enlarged}, of="y", like="x", scale=scale)["y"]
    np.testing.assert_allclose(found, value.repeat(scale, -1).repeat(scale, -2), rtol=1e-6)
    assert found.dtype == np.float32


def test_tiles_share_at_least_the_overlap_and_start_on_multiples() -> None:
    value = np.broadcast_to(np.arange(72.0), (1, 1, 8, 72))
    stack = tiles.tile({"x": value}, of="x", size=32, overlap=8, multiple=8)["x"]
    starts = stack[:, 0, 0, 0].tolist()
    assert starts == [0, 24, 40]
    assert all(start % 8 == 0 for start in starts)


def test_an_overlap_is_the_plain_mean_of_the_tiles_over_it() -> None:
    cut = tiles.tile({"x": np.zeros((1, 1, 4, 6))}, of="x", size=4, overlap=2)
    answers = np.stack([np.full((1, 4, 4), 1.0), np.full((1, 4, 4), 3.0)])
    found = tiles.untile({**cut, "y": answers}, of="y", like="x")["y"]
    assert found[0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]


def test_two_views_are_cut_alike() -> None:
    left, right = picture(20, 30), picture(20, 30)
    cut = tiles.tile({"left": left, "right": right}, of=["left", "right"], size=16, overlap=4)
    assert cut["left"].shape == cut["right"].shape
    np.testing.assert_array_equal(cut["right"][0], right[0, :, :16, :16])


def test_a_batch_and_a_wrong_stack_are_refused() -> None:
    with pytest.raises(Refused, match=r"shape \(2, 3"):
        tiles.tile({"x": np.zeros((2, 3, 40, 40))}, of="x", size=16, overlap=0)
    cut = tiles.tile({"x": picture(40, 40)}, of="x", size=16, overlap=0)
    for wrong in (cut["x"][:-1], cut["x"][..., :-1]):
        with pytest.raises(Refused, match="y has shape"):
            tiles.untile({**cut, "y": wrong}, of="y", like="x")
    for options in ({"size": 8, "overlap": 8}, {"size": 12, "overlap": 0, "multiple": 8}, {"size": 8, "overlap": -1}):
        with pytest.raises(Refused) as caught:
            tiles.tile({"x": picture(40, 40)}, of="x", **options)
        assert caught.value.code == "unknown-step"


def test_the_whole_way_there_and_back_as_a_manifest_says_it() -> None:
    before = (
        HostStep("image", {"to": "degraded"}),
        HostStep("pad", {"of": ["degraded"], "multiple": 8}),
        HostStep("tile", {"of": ["degraded"], "size": 32, "overlap": 8, "multiple": 8}),
    )
    after = (
        HostStep("untile", {"of": ["restored"], "like": "degraded"}),
        HostStep("crop", {"of": ["restored"], "like": "degraded"}),
        HostStep("clamp", {"of": "restored", "to": "image"}),
    )
    wanted = RNG.integers(0, 256, (51, 77, 3), np.uint8)
    ready = host.apply(before, {"image": wanted})
    assert ready["degraded"].shape == (6, 3, 32, 32)
    assert sorted(host.records(ready)) == ["degraded.size", "degraded.tiles"]
    answer = host.apply(after, {**host.records(ready), "restored": ready["degraded"]})
    np.testing.assert_allclose(answer["image"][0].transpose(1, 2, 0) * 255, wanted, atol=1e-4)


def test_bounds_of_dims_as_options_pad_and_tile_to_what_the_graph_takes() -> None:
    steps = (
        HostStep("pad", {"of": ["x"], "multiple": 8, "at_least": ["H.min", "W.min"]}),
        HostStep("tile", {"of": ["x"], "size": ["H.max", "W.max"], "overlap": 8, "multiple": 8}),
    )
    dims = (Dim("H", 16, 24, 32, 8), Dim("W", 24, 24, 40, 8))
    small = host.apply(steps, {"x": picture(3, 5)}, dims)
    assert small["x"].shape == (1, 3, 16, 24) and "x.tiles" not in small
    large = host.apply(steps, {"x": picture(41, 20)}, dims)
    assert large["x"].shape == (2, 3, 32, 24)
    assert large["x.tiles"].tolist() == [48, 24, 32, 40, 8]
    whole = tiles.untile({**large, "y": large["x"]}, of="y", like="x")["y"]
    np.testing.assert_array_equal(tiles.crop({**large, "y": whole}, of="y", like="x")["y"].shape[-2:], (41, 20))


def test_a_bound_of_a_dim_that_is_not_there_is_refused() -> None:
    step = HostStep("tile", {"of": ["x"], "size": "H.max", "overlap": 8})
    with pytest.raises(Refused, match=r"H\.max"):
        host.apply([step], {"x": picture(8, 8)}, (Dim("W", 8, 8, 8),))
