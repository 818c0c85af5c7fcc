"""The volumes and the lookup against plain loops and against PyTorch's sampler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .parts import module

volume = module("volume")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_volume(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    batch, channels, height, width = left.shape
    found = torch.zeros(batch, groups, disparities, height, width, dtype=left.dtype)
    size = channels // groups
    for d in range(min(disparities, width)):
        for group in range(groups):
            at = slice(group * size, (group + 1) * size)
            found[:, group, d, :, d:] = (left[:, at, :, d:] * right[:, at, :, : width - d]).mean(dim=1)
    return found


@pytest.mark.parametrize("width", [1, 5, 16, 48, 49])
def test_the_volume_is_the_mean_product_per_group_and_0_before_the_image(width: int) -> None:
    left, right = noise(2, 12, 3, width), noise(2, 12, 3, width, seed=1)
    found = volume.group_wise_correlation(left, right, 48, groups=4)
    torch.testing.assert_close(found, naive_volume(left, right, 48, 4))
    assert found[..., : min(47, width)].abs().sum() > 0
    if width < 48:
        assert not found[:, :, width:].any()


def test_a_shifted_image_is_most_alike_at_its_shift() -> None:
    right = noise(1, 96, 4, 40)
    left = torch.roll(right, 7, dims=3)
    found = volume.group_wise_correlation(left, right, 16).mean(dim=1)
    assert (found[0, :, :, 16:].argmax(dim=0) == 7).all()


def test_the_line_correlation_is_a_sum_over_channels() -> None:
    left, right = noise(2, 5, 3, 7), noise(2, 5, 3, 7, seed=1)
    wanted = torch.einsum("bchi,bchj->bjhi", left, right)
    torch.testing.assert_close(volume.line_correlation(left, right), wanted)


def test_halving_is_average_pooling() -> None:
    x = noise(1, 2, 6, 3, 4)
    wanted = functional.avg_pool3d(x, (2, 1, 1))
    torch.testing.assert_close(volume.halved(x), wanted)


def sampled(line: Tensor, position: Tensor) -> Tensor:
    """PyTorch's bilinear sampler with zeros outside, nine taps around each position: ``(B, C, 9, h, w)``."""
    batch, channels, size, height, width = line.shape
    lines = line.permute(0, 3, 4, 1, 2).reshape(-1, channels, 1, size)
    x = position.reshape(-1, 1, 1) + torch.arange(-4, 5, dtype=position.dtype)
    grid = torch.stack([2 * x / (size - 1) - 1, torch.zeros_like(x)], dim=-1)
    read = functional.grid_sample(lines, grid, align_corners=True)
    return read.reshape(batch, height, width, channels, 9).permute(0, 3, 4, 1, 2)


def test_taps_are_what_the_sampler_gives() -> None:
    line = noise(2, 3, 12, 4, 5)
    # Inside, at both borders, on whole entries, and far outside.
    position = noise(2, 1, 4, 5, seed=1) * 10 + 5
    position[0, 0, 0] = torch.tensor([0.0, 11.0, -4.5, 15.5, -300.0], dtype=torch.float64)
    wanted = sampled(line, position)
    torch.testing.assert_close(volume.taps(line, position), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(volume.taps(line[:, 0], position), wanted[:, 0], rtol=0, atol=1e-12)
    assert not wanted[0, :, :, 0, 4].any()


def test_a_line_of_one_entry_is_read() -> None:
    """Where the sampler divides by ``width - 1``, it gives NaN."""
    found = volume.taps(torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 0.25))
    assert found[0, 4, 0, 0] == 3.0 * 0.75
    assert found[0, 3, 0, 0] == 3.0 * 0.25  # at -0.75: a quarter of the way in
    assert found[0, 5, 0, 0] == 0.0
    assert torch.isfinite(found).all()


def test_the_lookup_is_two_levels_of_geometry_and_correlation() -> None:
    geometry, lines = noise(1, 8, 16, 3, 6), noise(1, 6, 3, 6, seed=1)
    disparity = noise(1, 1, 3, 6, seed=2).abs() * 6
    geometry2, lines2 = volume.halved(geometry), volume.halved(lines)
    found = volume.geometry_lookup((geometry, geometry2), (lines, lines2), disparity)
    column = torch.arange(6, dtype=torch.float64).expand(1, 1, 3, 6)
    wanted = torch.cat(
        [
            sampled(geometry, disparity).flatten(1, 2),
            sampled(lines[:, None], column - disparity)[:, 0],
            sampled(geometry2, disparity / 2).flatten(1, 2),
            sampled(lines2[:, None], (column - disparity) / 2)[:, 0],
        ],
        dim=1,
    )
    assert found.shape == (1, module("widths").LOOKED_UP, 3, 6) == (1, 162, 3, 6)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_the_mean_disparity_of_one_certain_plane_is_that_plane() -> None:
    scores = torch.zeros(1, 1, 48, 2, 3)
    scores[:, :, 17] = 100.0
    torch.testing.assert_close(volume.mean_disparity(scores), torch.full((1, 1, 2, 3), 17.0))
    even = volume.mean_disparity(torch.zeros(1, 1, 48, 2, 3))
    torch.testing.assert_close(even, torch.full((1, 1, 2, 3), 23.5))
