"""The convex upsampler: which weight goes where, what a constant becomes, and the form without unfolding."""

from __future__ import annotations

import pytest
import torch

from model_defs.stereo.upsample import ConvexUpsample, ShiftedUpsample

from .specimens import drawn

KINDS = [ConvexUpsample, ShiftedUpsample]


@pytest.mark.parametrize("kind", KINDS)
def test_each_fine_pixel_mixes_the_nine_around_its_coarse_one(kind: type[ConvexUpsample]) -> None:
    flow, mask = drawn(1, 1, 3, 4), drawn(1, 9 * 4, 3, 4, seed=1, low=-3.0, high=3.0)
    up = kind(2)(flow, mask)
    padded = torch.zeros(5, 6, dtype=flow.dtype)
    padded[1:4, 1:5] = 2 * flow[0, 0]
    weights = mask.reshape(9, 2, 2, 3, 4).softmax(0)
    for y in range(6):
        for x in range(8):
            around = padded[y // 2 : y // 2 + 3, x // 2 : x // 2 + 3].flatten()
            wanted = (weights[:, y % 2, x % 2, y // 2, x // 2] * around).sum()
            torch.testing.assert_close(up[0, 0, y, x], wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_stays_one_away_from_the_border_times_the_factor(kind: type[ConvexUpsample]) -> None:
    flow, mask = torch.full((1, 1, 5, 6), -3.0).double(), drawn(1, 9 * 16, 5, 6, low=-8.0, high=8.0)
    up = kind(4)(flow, mask)
    assert up.shape == (1, 1, 20, 24)
    torch.testing.assert_close(up[..., 4:-4, 4:-4], torch.full((1, 1, 12, 16), -12.0).double())
    assert (up <= 1e-12).all() and (up >= -12.0 - 1e-12).all(), "a convex mixture leaves no range"


@pytest.mark.parametrize("factor", [1, 4, 8])
def test_shifted_slices_are_the_unfolding(factor: int) -> None:
    flow, mask = drawn(2, 1, 7, 5), drawn(2, 9 * factor**2, 7, 5, seed=1)
    torch.testing.assert_close(ShiftedUpsample(factor)(flow, mask), ConvexUpsample(factor)(flow, mask))
