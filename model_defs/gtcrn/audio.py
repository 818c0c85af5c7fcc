"""GTCRN on samples: 256 in, 256 out, with the transform, its inverse and the overlap-add inside.

A frame is the last 256 samples and the 256 new ones under a periodic square-root Hann window; its enhanced spectrum
goes back under the same window, and the first half of it completes the second half of the frame before. The squared
windows of both add up to one, so nothing is divided.

Latency: what comes out belongs to the 256 samples before those that went in, 16 ms at 16 kHz; with the 256 samples
that must be waited for, a sound is heard 32 ms after it began. The signal before the first sample is silence, where a
centred STFT of the whole recording would reflect it: the first frame differs, and the recurrences remember it.
"""

import torch
from torch import Tensor

from .deploy import DeployedStream
from .network import BINS, FFT_SIZE
from .stream import STATES, GTCRNStream, State

HOP = FFT_SIZE // 2
"""Samples in and out of a step, and samples of delay."""

OVERLAPS = (State("analysis", "analysis_out", (1, HOP)), State("synthesis", "synthesis_out", (1, HOP)))
"""The samples before those that go in, and the half frame that waits for its other half."""

AUDIO_STATES = (*OVERLAPS, *STATES)
"""All states, in the order in which the step's graph takes and returns them."""


def window(dtype: torch.dtype) -> Tensor:
    """The periodic square-root Hann window, (512,), computed in float64."""
    return torch.hann_window(FFT_SIZE, dtype=torch.float64).sqrt().to(dtype)


class GTCRNAudio(GTCRNStream):
    """256 samples of GTCRN; the same 271 tensors."""

    def forward(self, audio_in: Tensor, analysis: Tensor, synthesis: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Enhances 256 samples.

        Args:
            audio_in: Noisy samples, (1, 256), -1 to 1.
            analysis: The 256 before them, (1, 256).
            synthesis: Second half of the frame before, (1, 256).
            *state: The states of ``STATES``.

        Returns:
            Enhanced samples, (1, 256), those of ``analysis``; then the states after the step, as ``AUDIO_STATES``.
        """
        shape = window(audio_in.dtype)
        spectrum = torch.fft.rfft(torch.cat((analysis, audio_in), dim=1) * shape)
        enhanced, *state = super().forward(torch.view_as_real(spectrum).unsqueeze(2), *state)
        frame = torch.fft.irfft(torch.view_as_complex(enhanced.squeeze(2).contiguous()), FFT_SIZE) * shape
        first, second = frame.split(HOP, dim=1)
        return (synthesis + first, audio_in.clone(), second, *state)


def analysis_basis(dtype: torch.dtype) -> Tensor:
    """Window and transform as one matrix, (512, 514): samples to all real parts, then all imaginary parts."""
    spectrum = torch.fft.rfft(torch.diag(window(torch.float64)))
    return torch.cat((spectrum.real, spectrum.imag), dim=1).to(dtype)


def synthesis_basis(dtype: torch.dtype) -> Tensor:
    """Inverse transform and window as one matrix, (514, 512), for the order of :func:`analysis_basis`."""
    unit = torch.eye(BINS, dtype=torch.complex128)
    frames = torch.fft.irfft(torch.cat((unit, 1j * unit)), FFT_SIZE)
    return (frames * window(torch.float64)).to(dtype)


class DeployedAudio(DeployedStream):
    """The same, deployed: a graph has no complex numbers, and its runtimes no good STFT; a matrix is exact.

    Args:
        stream: The published network on samples.
    """

    transform: Tensor
    inverse: Tensor

    def __init__(self, stream: GTCRNAudio) -> None:
        super().__init__(stream)
        dtype = stream.erb.erb_fc.weight.dtype
        self.register_buffer("transform", analysis_basis(dtype))
        self.register_buffer("inverse", synthesis_basis(dtype))

    def forward(self, audio_in: Tensor, analysis: Tensor, synthesis: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`GTCRNAudio.forward`."""
        parts = (torch.cat((analysis, audio_in), dim=1) @ self.transform).reshape(1, 2, 1, BINS)
        enhanced, *state = self.step(parts, *state)
        first, second = (enhanced.reshape(1, 2 * BINS) @ self.inverse).split(HOP, dim=1)
        return (synthesis + first, audio_in, second, *state)
