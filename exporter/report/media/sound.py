"""Recordings as sound files, and as spectrograms to look at."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray

from exporter.host.spectrum import window_of
from exporter.report.media import colours, png

LENGTH, BINS, WIDTH = 512, 128, 360  # samples of a window; rows and columns of a picture, at most
RANGE = 80.0  # dB from the loudest that are told apart


def file(samples: NDArray[np.int16], rate: int) -> bytes:
    """A .wav file of one channel, 16 bits."""
    held = io.BytesIO()
    with wave.open(held, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    return held.getvalue()


def levels(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """``(rows, columns)``: loudness in dB, high frequencies first; the mean of neighbours where there are more."""
    signal = samples.astype(np.float64) / 32768.0
    signal = np.pad(signal, (0, max(LENGTH - signal.size, 0)))
    hop = max(LENGTH // 4, -(-signal.size // WIDTH))
    frames = np.lib.stride_tricks.sliding_window_view(signal, LENGTH)[::hop]
    power = np.abs(np.fft.rfft(frames * window_of("hann", LENGTH), axis=1)) ** 2
    joined = power[:, 1:].reshape(len(power), BINS, -1).mean(axis=2)
    return np.asarray(10 * np.log10(joined.T[::-1] + 1e-12))


def spectrogram(found: NDArray[np.float64], loudest: float) -> bytes:
    """A picture of levels, from the loudest of all that it is compared with down."""
    return png.indexed(colours.numbers(found, loudest - RANGE, loudest), colours.palette(colours.MAGMA))
