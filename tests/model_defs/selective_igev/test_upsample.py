"""The upsampler against PyTorch's unfolding."""

from __future__ import annotations

import torch
from torch.nn import functional

from .parts import module

upsample = module("upsample")


def test_neighbours_are_those_of_unfolding() -> None:
    x = torch.arange(20.0).view(1, 1, 4, 5) + 1
    wanted = functional.unfold(x, 3, padding=1).view(1, 9, 4, 5)
    torch.testing.assert_close(upsample.neighbours(x), wanted, rtol=0, atol=0)


def test_a_constant_disparity_counts_four_times_as_many_pixels() -> None:
    weights = torch.rand(1, 9, 16, 24, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    found = upsample.superpixel_upsample(torch.full((1, 1, 4, 6), 3.0), weights)
    assert found.shape == (1, 1, 16, 24)
    torch.testing.assert_close(found[..., 4:-4, 4:-4], torch.full((1, 1, 8, 16), 12.0))
    # Beyond the border the disparity is 0.
    assert (found[..., 0, :] < 12).all()


def test_each_pixel_mixes_the_neighbours_of_its_own_coarse_pixel() -> None:
    coarse = torch.arange(24.0).view(1, 1, 4, 6)
    weights = torch.zeros(1, 9, 16, 24)
    weights[:, 5] = 1.0  # the neighbour to the right
    found = upsample.superpixel_upsample(coarse, weights)
    assert found[0, 0, 4 * 2 + 3, 4 * 1 + 2] == 4 * coarse[0, 0, 2, 2]
    assert found[0, 0, 0, 23] == 0
