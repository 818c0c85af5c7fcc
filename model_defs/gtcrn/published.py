"""GTCRN frame by frame with the inputs and outputs of the published streaming graph: a drop-in for its users.

The three caches, their names, order and layout are those of ``gtcrn_simple.onnx`` in
https://github.com/Xiaobin-Rong/gtcrn (MIT), which sherpa-onnx and other runtimes are written for. That file carries no
metadata: the keys and values here are what sherpa-onnx expects of a GTCRN before it takes the graph.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .deploy import DeployedStream
from .network import BANDS, CHANNELS, DILATIONS, FFT_SIZE, SAMPLE_RATE
from .stream import ATTENTION_STATE, CONV_STATES, GTCRNStream, State

CACHES = (
    State("conv_cache", "conv_cache_out", (2, 1, CHANNELS, 16, BANDS)),
    State("tra_cache", "tra_cache_out", (2, 3, 1, 1, CHANNELS)),
    State("inter_cache", "inter_cache_out", (2, 1, BANDS, CHANNELS)),
)
"""All states, in the order in which the frame's graph takes and returns them.

``conv_cache`` holds encoder and decoder along its first axis, and along its time axis the pasts of dilation 1, 2 and
5, frames 0:2, 2:6 and 6:16, although the decoder meets them the other way round. ``tra_cache`` holds encoder and
decoder, each in the order in which a frame meets its attentions. ``inter_cache`` holds both recurrences.
"""

METADATA = {
    "model_type": "gtcrn",
    "version": "1",
    "sample_rate": str(SAMPLE_RATE),
    "n_fft": str(FFT_SIZE),
    "hop_length": str(FFT_SIZE // 2),
    "window_length": str(FFT_SIZE),
    "window_type": "hann_sqrt",
    **{f"{cache.input}_shape": ",".join(str(size) for size in cache.shape) for cache in CACHES},
}
"""What sherpa-onnx reads from a graph file; the authors' own has none of it."""


def split_caches(conv: Tensor, tra: Tensor, inter: Tensor) -> tuple[Tensor, ...]:
    """Maps the tensors of ``CACHES`` to those of ``STATES``."""
    lengths = [2 * dilation for dilation in DILATIONS]
    encoder, decoder = (part.split(lengths, dim=2) for part in conv.unbind(0))
    return (*encoder, *reversed(decoder), tra.reshape(ATTENTION_STATE.shape), *inter.unbind(0))


def join_caches(state: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Reverses :func:`split_caches`."""
    count, half = len(CONV_STATES), len(DILATIONS)
    encoder, decoder = state[:half], tuple(reversed(state[half:count]))
    conv = torch.stack((torch.cat(tuple(encoder), dim=2), torch.cat(decoder, dim=2)))
    return conv, state[count].reshape(CACHES[1].shape), torch.stack(tuple(state[count + 1 :]))


class GTCRNStreamPublished(GTCRNStream):
    """One frame of GTCRN on three caches; the same 271 tensors."""

    def forward(self, mix: Tensor, conv_cache: Tensor, tra_cache: Tensor, inter_cache: Tensor) -> tuple[Tensor, ...]:
        """Enhances one frame.

        Args:
            mix: Noisy complex spectrum of the frame, (1, 257, 1, 2).
            conv_cache: The first of ``CACHES``.
            tra_cache: The second.
            inter_cache: The third.

        Returns:
            The enhanced spectrum, (1, 257, 1, 2), then the caches after the frame.
        """
        enhanced, *state = super().forward(mix, *split_caches(conv_cache, tra_cache, inter_cache))
        return (enhanced, *join_caches(state))


class DeployedStreamPublished(DeployedStream):
    """The same, deployed."""

    def forward(self, mix: Tensor, conv_cache: Tensor, tra_cache: Tensor, inter_cache: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`GTCRNStreamPublished.forward`."""
        enhanced, *state = super().forward(mix, *split_caches(conv_cache, tra_cache, inter_cache))
        return (enhanced, *join_caches(state))
