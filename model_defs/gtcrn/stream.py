"""GTCRN frame by frame: the offline network with everything it remembers as explicit inputs and outputs.

The memory of the network is ``2 * dilation`` frames before each of the six dilated convolutions, the hidden state
of the six temporal attentions, and the hidden state of the two inter-frame recurrences. All of it starts at zero.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .network import (
    BANDS,
    CHANNELS,
    DILATIONS,
    GTCRN,
    GTConvBlock,
    apply_mask,
    shuffle_channels,
    spectrum_features,
    unfold_bands,
)


class State(NamedTuple):
    """One tensor that is carried from frame to frame, zero before the first.

    Attributes:
        input: Name as an input of the frame's graph.
        output: Name as an output of the frame's graph.
        shape: Its shape.
    """

    input: str
    output: str
    shape: tuple[int, ...]


def _state(name: str, *shape: int) -> State:
    return State(name, f"{name}_out", shape)


_LAYERS = tuple(
    (part, layer, dilation)
    for part, dilations in (("encoder", DILATIONS), ("decoder", DILATIONS[::-1]))
    for layer, dilation in enumerate(dilations)
)

CONV_STATES = tuple(_state(f"{part}_conv{i}", 1, CHANNELS, 2 * d, BANDS) for part, i, d in _LAYERS)
"""Past inputs of the dilated convolutions, (1, 16, 2 * dilation, 33), oldest frame first."""

ATTENTION_STATE = _state("attention", len(_LAYERS), 1, CHANNELS)
"""Hidden states of the temporal attentions, (6, 1, 16), in the order in which a frame meets them.

They are one tensor because a runtime's cost per input and output is larger than that of handling 16 numbers.
"""

INTER_STATES = tuple(_state(f"dpgrnn{i}_inter", 1, BANDS, CHANNELS) for i in (1, 2))
"""Hidden states of the inter-frame recurrences, (1, 33, 16): the two groups' 8 + 8 units."""

STATES = (*CONV_STATES, ATTENTION_STATE, *INTER_STATES)
"""All states, in the order in which the frame's graph takes and returns them."""


def initial_state(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Returns the states before the first frame: zeros, in the order of ``STATES``."""
    return tuple(torch.zeros(state.shape, dtype=dtype) for state in STATES)


def unpack_state(state: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Sorts the states of ``STATES``.

    Returns:
        Six pasts of convolutions, six hidden states of attentions, (1, 1, 16), two of inter-frame recurrences.
    """
    if len(state) != len(STATES):
        raise ValueError(f"{len(state)} states given, {len(STATES)} wanted: {[s.input for s in STATES]}")
    count = len(_LAYERS)
    return list(state[:count]), list(state[count].split(1)), list(state[count + 1 :])


def pack_state(pasts: list[Tensor], attentions: list[Tensor], inters: list[Tensor]) -> tuple[Tensor, ...]:
    """Reverses ``unpack_state``."""
    return (*pasts, torch.cat(attentions), *inters)


def _advance(block: GTConvBlock, x: Tensor, past: Tensor, attention: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Runs one grouped block on one frame.

    Args:
        block: The block.
        x: Its input, (1, 16, 1, 33).
        past: The frames before, (1, 16, 2 * dilation, 33).
        attention: Hidden state of its attention, (1, 1, 16).

    Returns:
        Its output, (1, 16, 1, 33), and both states after the frame.
    """
    transformed, passed = x.chunk(2, dim=1)
    frames = torch.cat((past, block.widen(transformed)), dim=2)
    gated, attention = block.tra(block.narrow(frames), attention)
    return shuffle_channels(gated, passed), frames[:, :, 1:], attention


class GTCRNStream(nn.Module):
    """One frame of GTCRN; shares the modules of the offline network, and so its 271 tensors.

    Args:
        network: The offline network; a fresh one where None.
    """

    def __init__(self, network: GTCRN | None = None) -> None:
        super().__init__()
        network = network or GTCRN()
        self.erb = network.erb
        self.encoder = network.encoder
        self.dpgrnn1 = network.dpgrnn1
        self.dpgrnn2 = network.dpgrnn2
        self.decoder = network.decoder

    def forward(self, mix: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Enhances one frame.

        Args:
            mix: Noisy complex spectrum of the frame, (1, 257, 1, 2).
            *state: The states before the frame, as ``STATES`` lists them.

        Returns:
            The enhanced spectrum, (1, 257, 1, 2), then the states after the frame, as ``STATES`` lists them.
        """
        pasts, attentions, inters = unpack_state(state)
        x = unfold_bands(self.erb.compress(spectrum_features(mix)))
        skips = []
        for layer in self.encoder.en_convs[:2]:
            x = layer(x)
            skips.append(x)
        for i, block in enumerate(self.encoder.en_convs[2:]):
            x, pasts[i], attentions[i] = _advance(block, x, pasts[i], attentions[i])
            skips.append(x)
        x, inters[0] = self.dpgrnn1(x, inters[0])
        x, inters[1] = self.dpgrnn2(x, inters[1])
        for i, block in enumerate(self.decoder.de_convs[:3], start=3):
            x, pasts[i], attentions[i] = _advance(block, x + skips.pop(), pasts[i], attentions[i])
        for layer in self.decoder.de_convs[3:]:
            x = layer(x + skips.pop())
        return (apply_mask(mix, self.erb.expand(x)), *pack_state(pasts, attentions, inters))
