"""The two image networks of the RAFT-Stereo family: features to match, and context with the states to start from.

Source: Lipson et al., "RAFT-Stereo: Multilevel Recurrent Field Transforms for Stereo Matching", 3DV 2021,
https://arxiv.org/abs/2109.07547. Written from the published description and the checkpoint's keys and shapes.
"""

from __future__ import annotations

from torch import Tensor, nn

from .declare import HIDDEN

FEATURES = 256
NORMALISATIONS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each normalised, and the input added.

    A block that changes size or width brings its input to it by a 1x1 convolution. The normalisation behind that has
    two names in a checkpoint, ``norm3`` and ``downsample.1``.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        norm: ``batch``, or ``instance``: each channel of each image by its own mean and variance, no weights.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, norm: str, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1, self.norm2 = normalisation(norm, outputs), normalisation(norm, outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.norm3 = normalisation(norm, outputs)
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), self.norm3)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, H / stride, W / stride)``."""
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


def normalisation(kind: str, channels: int) -> nn.Module:
    """The normalisation of that name.

    Raises:
        KeyError: for another name.
    """
    return NORMALISATIONS[kind](channels)


class Trunk(nn.Module):
    """What both networks begin with: ``(B, 3, H, W)`` to 128 channels at stride ``2 ** downsample``.

    Args:
        norm: as of :class:`ResidualBlock`.
        downsample: how many of the first convolution and the second and third stage halve the size, the last first.
    """

    def __init__(self, norm: str, downsample: int) -> None:
        super().__init__()
        strides = [2 if downsample > at else 1 for at in (2, 1, 0)]
        self.conv1, self.norm1 = nn.Conv2d(3, 64, 7, strides[0], padding=3), normalisation(norm, 64)
        self.layer1 = stage(64, 64, norm, 1)
        self.layer2 = stage(64, 96, norm, strides[1])
        self.layer3 = stage(96, 128, norm, strides[2])

    def trunk(self, x: Tensor) -> Tensor:
        """The finest features."""
        x = self.norm1(self.conv1(x)).relu()
        features: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return features


def stage(inputs: int, outputs: int, norm: str, stride: int) -> nn.Sequential:
    """Two residual blocks, the first with the stride."""
    return nn.Sequential(ResidualBlock(inputs, outputs, norm, stride), ResidualBlock(outputs, outputs, norm))


class FeatureNetwork(Trunk):
    """``x (B, 3, H, W)`` to the features that are matched, ``(B, 256, h, w)``."""

    def __init__(self, downsample: int) -> None:
        super().__init__("instance", downsample)
        self.conv2 = nn.Conv2d(128, FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.conv2(self.trunk(x))
        return features


class ContextNetwork(Trunk):
    """From the left image, at each level of the recurrence, 128 channels of hidden state and 128 of context.

    Its heads are named ``outputs08``, ``outputs16`` and ``outputs32`` after the strides of an earlier network; here
    they are at strides ``2 ** downsample`` and two and four times that. All exist whatever is used of them.
    """

    def __init__(self, downsample: int) -> None:
        super().__init__("batch", downsample)
        self.layer4, self.layer5 = stage(128, 128, "batch", 2), stage(128, 128, "batch", 2)
        self.outputs08 = nn.ModuleList([head(), head()])
        self.outputs16 = nn.ModuleList([head(), head()])
        self.outputs32 = nn.ModuleList([nn.Conv2d(128, HIDDEN, 3, padding=1) for _ in range(2)])

    def forward(self, finest: Tensor, levels: int) -> tuple[list[Tensor], list[Tensor]]:
        """What :meth:`trunk` gave to ``levels`` raw hidden states and as many raw contexts, the finest first."""
        maps = [finest]
        for layer in (self.layer4, self.layer5)[: levels - 1]:
            maps.append(layer(maps[-1]))
        pairs = list(zip((self.outputs08, self.outputs16, self.outputs32), maps, strict=False))
        return [heads[0](x) for heads, x in pairs], [heads[1](x) for heads, x in pairs]


def head() -> nn.Sequential:
    """From 128 channels of a level to 128 of hidden state or of context, raw."""
    return nn.Sequential(ResidualBlock(128, 128, "batch"), nn.Conv2d(128, HIDDEN, 3, padding=1))
