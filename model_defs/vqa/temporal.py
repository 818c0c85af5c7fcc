"""Models of time over the maps of a clip: each frame's map gets to know its neighbours'.

A clip is ``(B, T, C, H, W)`` with a fixed number of frames; what is before its first and after its last frame is zero.
Every module gives a clip again, of as many or fewer frames.

Source: the three methods that the document names: TSM (Lin et al., ICCV 2019, arxiv.org/abs/1811.08383), TEA (Li et
al., CVPR 2020, arxiv.org/abs/2004.01398), SlowFast (Feichtenhofer et al., ICCV 2019, arxiv.org/abs/1812.03982); written
from the published equations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .config import SLOWNESS


def shifted(clip: Tensor, by: int) -> Tensor:
    """Every frame's map in the place of the frame ``by`` (1 or -1) later; zeros where none was."""
    nothing = torch.zeros_like(clip[:, :1])
    return torch.cat([nothing, clip[:, :-1]] if by > 0 else [clip[:, 1:], nothing], dim=1)


def per_frame(layer: nn.Module, clip: Tensor) -> Tensor:
    """A layer for images on every frame: ``(B, T, C, H, W)`` to ``(B, T, C', H', W')``."""
    return layer(clip.flatten(0, 1)).unflatten(0, (-1, clip.shape[1]))


class TemporalShift(nn.Module):
    """TSM in a residual branch: some channels come from the frame before, some from the one after; then a convolution.

    Args:
        channels: of the maps.
        part: one in how many channels moves each way.
    """

    def __init__(self, channels: int, part: int = 8) -> None:
        super().__init__()
        self.moved = max(channels // part, 1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, clip: Tensor) -> Tensor:
        """``(B, T, C, H, W)`` to the same shape."""
        later, earlier, still = clip.tensor_split((self.moved, 2 * self.moved), dim=2)
        mixed = torch.cat([shifted(later, 1), shifted(earlier, -1), still], dim=2)
        return clip + per_frame(self.conv, mixed).relu()


class MotionExcitation(nn.Module):
    """TEA's first half: channels in which the next frame differs are raised, and others lowered.

    The weight is the paper's ``2 sigmoid(.) - 1``, from -1 to 1, and a frame is added to its weighed self: where
    nothing moves, the weight is 0 and the frame stays as it is.

    Args:
        channels: of the maps.
        reduction: one in how many channels the difference is taken in.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden))
        self.transform = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.expand = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, clip: Tensor) -> Tensor:
        """``(B, T, C, H, W)`` to the same shape."""
        squeezed = per_frame(self.squeeze, clip)
        # The last frame has no next one: its difference is zero.
        motion = (per_frame(self.transform, squeezed[:, 1:]) - squeezed[:, :-1]).mean(dim=(3, 4), keepdim=True)
        motion = torch.cat([motion, torch.zeros_like(motion[:, :1])], dim=1)
        return clip * (2.0 * torch.sigmoid(per_frame(self.expand, motion)))  # clip + clip * (2 sigmoid(.) - 1)


class ChannelwiseTime(nn.Module):
    """Each channel of a frame is mixed with the same channel of the frame before and the one after.

    A convolution along time of as many groups as channels, written as a sum: PyTorch gives a 3-D convolution without
    bias a computed one in its graph, and OpenVINO does not read that.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Rows: what the frame before, the frame itself and the one after weigh. At first, as if there were no time.
        self.weight = nn.Parameter(torch.tensor([[0.0], [1.0], [0.0]]).repeat(1, channels))

    def forward(self, clip: Tensor) -> Tensor:
        """``(B, T, C, H, W)`` to the same shape."""
        before, now, after = (row[:, None, None] for row in self.weight)
        return shifted(clip, 1) * before + clip * now + shifted(clip, -1) * after


class MultipleTemporalAggregation(nn.Module):
    """TEA's second half: four groups of channels, each after the first seeing one frame and one pixel further.

    Args:
        channels: of the maps, a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 4
        self.times = nn.ModuleList(ChannelwiseTime(width) for _ in range(3))
        self.spaces = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(3))

    def forward(self, clip: Tensor) -> Tensor:
        """``(B, T, C, H, W)`` to the same shape."""
        first, *groups = clip.chunk(4, dim=2)
        found = [first]
        for time, space, group in zip(self.times, self.spaces, groups, strict=True):
            given = group if len(found) == 1 else group + found[-1]
            found.append(per_frame(space, time(given)))
        return torch.cat(found, dim=2)


class TEA(nn.Module):
    """Motion excitation, then multiple temporal aggregation, in a residual branch.

    Args:
        channels: of the maps, a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.excite = MotionExcitation(channels)
        self.reduce = nn.Conv2d(channels, channels, 1)
        self.aggregate = MultipleTemporalAggregation(channels)
        self.restore = nn.Conv2d(channels, channels, 1)

    def forward(self, clip: Tensor) -> Tensor:
        """``(B, T, C, H, W)`` to the same shape."""
        inner = per_frame(self.reduce, self.excite(clip)).relu()
        return clip + per_frame(self.restore, self.aggregate(inner).relu())


class SlowFast(nn.Module):
    """Every fourth frame with all channels, every frame with few, and a lateral connection from fast to slow.

    Args:
        channels: of the maps.
        share: one in how many channels the fast pathway has.
    """

    def __init__(self, channels: int, share: int = 8) -> None:
        super().__init__()
        few = max(channels // share, 1)
        self.slow = nn.Conv2d(channels, channels, 3, padding=1)
        self.fast = nn.Sequential(
            nn.Conv3d(channels, few, (3, 1, 1), padding=(1, 0, 0)), nn.ReLU(), nn.Conv3d(few, few, 3, padding=1)
        )
        self.lateral = nn.Conv3d(few, 2 * few, (5, 1, 1), stride=(SLOWNESS, 1, 1), padding=(2, 0, 0))
        self.fuse = nn.Conv2d(channels + 2 * few, channels, 1)

    def forward(self, clip: Tensor) -> Tensor:
        """``(B, T, C, H, W)`` to ``(B, T/4, C, H, W)``.

        Raises:
            ValueError: for a number of frames that is no multiple of 4.
        """
        if clip.shape[1] % SLOWNESS:
            raise ValueError(f"{clip.shape[1]} frames are no multiple of {SLOWNESS}")
        slow = per_frame(self.slow, clip[:, ::SLOWNESS]).relu()
        lateral = over_time(self.lateral, over_time(self.fast, clip).relu()).relu()
        return per_frame(self.fuse, torch.cat([slow, lateral], dim=2))


def over_time(layer: nn.Module, clip: Tensor) -> Tensor:
    """A layer for volumes ``(B, C, T, H, W)`` on a clip ``(B, T, C, H, W)``."""
    return layer(clip.transpose(1, 2)).transpose(1, 2)


METHODS: dict[str, Callable[[int], nn.Module]] = {"tsm": TemporalShift, "tea": TEA, "slowfast": SlowFast}


class TemporalFeatures(nn.Module):
    """The maps of a clip's frames to one vector: fewer channels, a model of time, the mean over frames and places.

    Args:
        method: one of :data:`METHODS`.
        width: channels of the maps.
        dim: width of the vector, a multiple of 16.
    """

    def __init__(self, method: str, width: int, dim: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, dim // 4, 1)
        self.method = METHODS[method](dim // 4)
        self.project = nn.Linear(dim // 4, dim)

    def forward(self, clip: Tensor) -> Tensor:
        """``(B, T, width, H, W)`` to ``(B, dim)``."""
        return self.project(self.method(per_frame(self.reduce, clip)).mean(dim=(1, 3, 4)))
