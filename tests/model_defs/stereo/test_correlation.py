"""The pyramid and its two lookups, against sums and straight lines written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_defs.stereo.correlation import GatherLookup, GridLookup, columns, correlation_pyramid
from model_defs.stereo.declare import RADIUS

from .specimens import drawn

LOOKUPS = [GridLookup(), GatherLookup()]


def features(width: int = 24) -> tuple[Tensor, Tensor]:
    return drawn(1, 8, 3, width), drawn(1, 8, 3, width, seed=1)


def test_every_pixel_of_a_line_is_compared_with_every_other_over_the_root_of_the_channels() -> None:
    left, right = features()
    finest = correlation_pyramid(left, right)[0]
    for y, i, j in ((0, 0, 5), (2, 23, 1), (1, 7, 7)):
        torch.testing.assert_close(finest[0, y, i, j], (left[0, :, y, i] * right[0, :, y, j]).sum() / 8**0.5)


def test_coarser_levels_are_means_and_there_are_no_more_than_are_read() -> None:
    pyramid = correlation_pyramid(*features())
    assert [level.shape[-1] for level in pyramid] == [24, 12, 6, 3]
    for power, level in enumerate(pyramid):
        torch.testing.assert_close(level, pyramid[0].unflatten(-1, (-1, 2**power)).mean(-1))


def test_an_odd_level_drops_its_last_column() -> None:
    """The real-time network's stride is 8, so that a width of 160 has levels of 20, 10, 5 and 2 columns."""
    assert [level.shape[-1] for level in correlation_pyramid(*features(20))] == [20, 10, 5, 2]


@pytest.mark.parametrize("lookup", LOOKUPS, ids=["grid", "gather"])
def test_a_lookup_reads_straight_lines_between_columns_and_nothing_outside(lookup: nn.Module) -> None:
    pyramid = correlation_pyramid(*features())
    position = drawn(1, 1, 3, 24, low=-40.0, high=60.0)
    found = lookup(pyramid, position)
    assert found.shape == (1, 36, 3, 24)
    for y, x, level, tap in ((0, 3, 0, 0), (1, 10, 0, 8), (2, 20, 1, 4), (0, 12, 3, 3), (1, 23, 2, 6)):
        for shift in np.linspace(-30, 30, 13):
            moved = position + shift
            line = pyramid[level][0, y, x].numpy()
            at = moved[0, 0, y, x].item() / 2**level + tap - RADIUS
            wanted = np.interp(at, np.arange(-1, len(line) + 1), [0, *line, 0])
            assert lookup(pyramid, moved)[0, 9 * level + tap, y, x].item() == pytest.approx(wanted, abs=1e-12)


def test_both_lookups_are_one_function() -> None:
    pyramid, position = correlation_pyramid(*features()), drawn(1, 1, 3, 24, low=-40.0, high=60.0)
    grid, gather = (lookup(pyramid, position) for lookup in LOOKUPS)
    torch.testing.assert_close(grid, gather, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lookup", LOOKUPS, ids=["grid", "gather"])
def test_no_flow_reads_the_pixel_itself_in_the_middle(lookup: nn.Module) -> None:
    pyramid = correlation_pyramid(*features())
    position = columns(pyramid[0]).expand(1, 1, 3, 24)
    middle = lookup(pyramid, position)[:, RADIUS]
    torch.testing.assert_close(middle, pyramid[0].diagonal(dim1=2, dim2=3))


def test_the_gather_keeps_digits_that_the_sampler_loses() -> None:
    """In float32 the sampler's way to -1..1 and back costs digits; ten neighbours and a fraction do not."""
    pyramid, position = correlation_pyramid(*features(64)), drawn(1, 1, 3, 64, low=0.0, high=64.0)
    exact = GatherLookup()(pyramid, position.float().double())
    single = [level.float() for level in pyramid]
    errors = [(lookup(single, position.float()).double() - exact).norm() for lookup in LOOKUPS]
    assert errors[1] < errors[0] / 2
