"""Every model of time reads more than one frame, and in order: none is the identity, none a mere mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from exporter import define
from model_defs.vqa.temporal import (
    METHODS,
    ChannelwiseTime,
    MotionExcitation,
    TemporalFeatures,
    TemporalShift,
    shifted,
)

T, C = 8, 16


def clip(frames: int = T, channels: int = C) -> Tensor:
    return torch.randn(2, frames, channels, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=METHODS)
def module(request: pytest.FixtureRequest) -> torch.nn.Module:
    made = METHODS[request.param](C)
    define.seed_weights(made, 0)
    return made.eval()


@torch.no_grad()
def test_it_is_not_the_identity(module: torch.nn.Module) -> None:
    given = clip()
    found = module(given)
    step = T // found.shape[1]
    assert found.shape[2:] == given.shape[2:]
    assert not torch.allclose(found, given[:, ::step], atol=0.1)


@torch.no_grad()
def test_a_frame_changes_what_is_found_of_others(module: torch.nn.Module) -> None:
    given, other = clip(), clip()
    other[:, 3] += 1.0
    moved = (module(given) - module(other)).abs().amax(dim=(0, 2, 3, 4))
    step = T // len(moved)
    assert sum(moved > 1e-3) >= 2 if step == 1 else moved[1] > 1e-3, moved


@torch.no_grad()
def test_it_reads_the_order_of_frames(module: torch.nn.Module) -> None:
    """A mean over frames is the same whatever their order."""
    given = clip()
    shuffled = given[:, [4, 1, 6, 3, 0, 5, 2, 7]]
    assert not torch.allclose(module(given).mean(1), module(shuffled).mean(1), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_features_of_a_clip_read_the_order_of_frames(method: str) -> None:
    made = TemporalFeatures(method, 12, 64)
    define.seed_weights(made, 0)
    made.eval()
    given = clip(T, 12)
    assert made(given).shape == (2, 64)
    assert not torch.allclose(made(given), made(given.flip(1)), atol=1e-4)


@torch.no_grad()
def test_a_shift_moves_one_frame_and_fills_with_zeros() -> None:
    given = clip()
    later, earlier = shifted(given, 1), shifted(given, -1)
    assert torch.equal(later[:, 1:], given[:, :-1]) and not later[:, 0].any()
    assert torch.equal(earlier[:, :-1], given[:, 1:]) and not earlier[:, -1].any()


@torch.no_grad()
def test_tsm_moves_an_eighth_of_the_channels_each_way() -> None:
    one = TemporalShift(C).eval()
    torch.nn.init.dirac_(one.conv.weight)
    torch.nn.init.zeros_(one.conv.bias)
    given = clip().abs()
    added = one(given) - given
    torch.testing.assert_close(added[:, :, 0:2], shifted(given, 1)[:, :, 0:2])
    torch.testing.assert_close(added[:, :, 2:4], shifted(given, -1)[:, :, 2:4])
    torch.testing.assert_close(added[:, :, 4:], given[:, :, 4:])


@torch.no_grad()
def test_tea_is_not_excited_by_what_does_not_move() -> None:
    """With a kernel that keeps maps as they are, equal frames differ by nothing; the last frame has no next one."""
    one = MotionExcitation(C).eval()
    define.seed_weights(one, 0)
    torch.nn.init.dirac_(one.transform.weight, groups=C // 16)
    still = clip()[:, :1].expand(-1, T, -1, -1, -1)
    gates = one(still) / still - 1
    torch.testing.assert_close(gates, gates[:, -1:].expand_as(gates), rtol=1e-4, atol=1e-5)
    moving = one(clip()) / clip() - 1
    assert not torch.allclose(moving[:, 0], moving[:, -1], atol=1e-3)


@torch.no_grad()
def test_tea_leaves_still_frames_as_they_are() -> None:
    """The paper's weight is ``2 sigmoid(.) - 1``, which is 0 where nothing moves; ``sigmoid(.)`` alone gives 1.5."""
    one = MotionExcitation(C).eval()
    torch.nn.init.dirac_(one.transform.weight, groups=C // 16)
    assert not one.expand[1].bias.any()
    still = clip()[:, :1].expand(-1, T, -1, -1, -1)
    torch.testing.assert_close(one(still), still)
    torch.nn.init.constant_(one.expand[1].bias, 3.0)
    torch.testing.assert_close(one(still), still * 2 / (1 + math.exp(-3.0)))


@torch.no_grad()
def test_channelwise_time_is_a_convolution_of_as_many_groups_as_channels() -> None:
    ours, theirs = ChannelwiseTime(C), torch.nn.Conv3d(C, C, (3, 1, 1), padding=(1, 0, 0), groups=C, bias=False)
    assert torch.equal(ours(clip()), clip()), "at first as if there were no time"
    define.seed_weights(ours, 0)
    theirs.weight.copy_(ours.weight.T.reshape(C, 1, 3, 1, 1))
    torch.testing.assert_close(ours(clip()), theirs(clip().transpose(1, 2)).transpose(1, 2))


def test_slowfast_refuses_frames_that_it_cannot_share_out() -> None:
    with pytest.raises(ValueError, match="6 frames are no multiple of 4"):
        METHODS["slowfast"](C)(clip(6))
