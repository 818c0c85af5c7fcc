"""Convolutional gated recurrent units of the RAFT-Stereo family: plain, with context, and selective.

Sources: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020,
https://arxiv.org/abs/2003.12039 (the convolutional GRU); Lipson et al., "RAFT-Stereo", 3DV 2021,
https://arxiv.org/abs/2109.07547 (the context inside the gates); Wang et al., "Selective-Stereo: Adaptive Frequency
Information Selection for Stereo Matching", CVPR 2024, https://arxiv.org/abs/2403.00486 (the selective unit);
Wen et al., "FoundationStereo", CVPR 2025, https://arxiv.org/abs/2501.09898 (the unit with joined input). Written from
the published equations and the checkpoints' keys and shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .declare import HIDDEN, INPUTS


class _Gates(nn.Module):
    """The three convolutions that every unit here has: update ``convz``, reset ``convr``, candidate ``convq``."""

    def __init__(self, hidden: int, inputs: int, kernel: int) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel {kernel} is even or not positive: a padding of kernel // 2 would change the size")
        self.convz, self.convr, self.convq = (
            nn.Conv2d(hidden + inputs, hidden, kernel, padding=kernel // 2) for _ in range(3)
        )


class RaftConvGRU(_Gates):
    """A gated recurrent unit whose products are convolutions.

    ``z = sigmoid(Wz [h, x])``, ``r = sigmoid(Wr [h, x])``, ``q = tanh(Wq [r h, x])``, ``h' = (1 - z) h + z q``; each
    with its bias.

    Args:
        hidden: channels of the hidden state.
        inputs: channels of the input.
        kernel: odd size of the kernels; 1 mixes channels only.

    Raises:
        ValueError: for an even kernel.
    """

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUTS, kernel: int = 3) -> None:
        super().__init__(hidden, inputs, kernel)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """``h (B, hidden, H, W)`` and ``x (B, inputs, H, W)`` to the next ``h``."""
        hx = torch.cat([h, x], dim=1)
        z, r = torch.sigmoid(self.convz(hx)), torch.sigmoid(self.convr(hx))
        q = torch.tanh(self.convq(torch.cat([r * h, x], dim=1)))
        return (1 - z) * h + z * q


class RaftConvGRUHX(_Gates):
    """The unit of FoundationStereo: its gates read features ``hx`` made of state and input elsewhere.

    ``z = sigmoid(Wz hx)``, ``r = sigmoid(Wr hx)``, ``q = tanh(Wq [r h, x])``, ``h' = (1 - z) h + z q``. With
    ``hx = [h, x]`` it is :class:`RaftConvGRU`.

    Args:
        hidden: channels of the hidden state.
        inputs: channels of the input.
        kernel: odd size of the kernels.

    Raises:
        ValueError: for an even kernel.
    """

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUTS, kernel: int = 3) -> None:
        super().__init__(hidden, inputs, kernel)

    def forward(self, h: Tensor, x: Tensor, hx: Tensor) -> Tensor:
        """``h (B, hidden, H, W)``, ``x (B, inputs, H, W)``, ``hx (B, hidden + inputs, H, W)`` to the next ``h``."""
        z, r = torch.sigmoid(self.convz(hx)), torch.sigmoid(self.convr(hx))
        q = torch.tanh(self.convq(torch.cat([r * h, x], dim=1)))
        return (1 - z) * h + z * q


class ContextConvGRU(_Gates):
    """The unit of RAFT-Stereo: context, computed once per image, is added inside the gates.

    ``z = sigmoid(Wz [h, x] + cz)``, ``r = sigmoid(Wr [h, x] + cr)``, ``q = tanh(Wq [r h, x] + cq)``,
    ``h' = (1 - z) h + z q``.

    Args:
        hidden: channels of the hidden state and of each context.
        inputs: channels of the input.
        kernel: odd size of the kernels.

    Raises:
        ValueError: for an even kernel.
    """

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUTS, kernel: int = 3) -> None:
        super().__init__(hidden, inputs, kernel)

    def forward(self, h: Tensor, cz: Tensor, cr: Tensor, cq: Tensor, x: Tensor) -> Tensor:
        """``h``, ``cz``, ``cr``, ``cq (B, hidden, H, W)`` and ``x (B, inputs, H, W)`` to the next ``h``."""
        hx = torch.cat([h, x], dim=1)
        z, r = torch.sigmoid(self.convz(hx) + cz), torch.sigmoid(self.convr(hx) + cr)
        q = torch.tanh(self.convq(torch.cat([r * h, x], dim=1)) + cq)
        return (1 - z) * h + z * q


class SelectiveConvGRU(nn.Module):
    """The selective recurrent unit of Selective-Stereo: a small and a large kernel, mixed pixel by pixel.

    ``h' = A small(h, x) + (1 - A) large(h, x)``. Both units always run: the attention ``A`` mixes softly.

    Args:
        hidden: channels of the hidden state.
        inputs: channels of the input.
        small: odd kernel of the unit that keeps detail.
        large: odd kernel of the unit that sees around a pixel.

    Raises:
        ValueError: for an even kernel.
    """

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUTS, small: int = 1, large: int = 3) -> None:
        super().__init__()
        self.small_gru, self.large_gru = RaftConvGRU(hidden, inputs, small), RaftConvGRU(hidden, inputs, large)

    def forward(self, attention: Tensor, h: Tensor, x: Tensor) -> Tensor:
        """``attention (B, 1, H, W)`` in 0..1, ``h (B, hidden, H, W)``, ``x (B, inputs, H, W)`` to the next ``h``."""
        return attention * self.small_gru(h, x) + (1 - attention) * self.large_gru(h, x)


class SelectiveConvGRUFused(nn.Module):
    """The document's selective unit, which is FoundationStereo's: state and input are joined by convolutions first.

    ``x' = relu(conv0 x)``, ``hx = relu(conv1 [x', h])``, then as in :class:`SelectiveConvGRU` with both gates of both
    units reading ``hx``. Its weights do not fit checkpoints of Selective-Stereo, nor theirs it.

    Args:
        hidden: channels of the hidden state.
        inputs: channels of the input.
        small: odd kernel of the unit that keeps detail.
        large: odd kernel of the unit that sees around a pixel.

    Raises:
        ValueError: for an even kernel.
    """

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUTS, small: int = 1, large: int = 3) -> None:
        super().__init__()
        joined = hidden + inputs
        self.conv0 = nn.Sequential(nn.Conv2d(inputs, inputs, 3, padding=1), nn.ReLU())
        self.conv1 = nn.Sequential(nn.Conv2d(joined, joined, 3, padding=1), nn.ReLU())
        self.small_gru, self.large_gru = RaftConvGRUHX(hidden, inputs, small), RaftConvGRUHX(hidden, inputs, large)

    def forward(self, attention: Tensor, h: Tensor, x: Tensor) -> Tensor:
        """``attention (B, 1, H, W)`` in 0..1, ``h (B, hidden, H, W)``, ``x (B, inputs, H, W)`` to the next ``h``."""
        x = self.conv0(x)
        hx = self.conv1(torch.cat([x, h], dim=1))
        return attention * self.small_gru(h, x, hx) + (1 - attention) * self.large_gru(h, x, hx)
