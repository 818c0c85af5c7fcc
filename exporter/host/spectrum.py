"""Short-time Fourier transform and its inverse in numpy, equal to ``torch.stft(center=True)`` and ``torch.istft``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Refused

Array = NDArray[np.generic]

# Below this the overlapped squared windows cannot be divided by.
SMALLEST_ENVELOPE = 1e-11


def _window(kind: str, length: int) -> NDArray[np.float64]:
    """A periodic window; ``sqrt-hann`` squares to a Hann window, which overlaps to a constant at half its length."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    if kind not in ("sqrt-hann", "hann"):
        raise Refused("unknown-step", f"no window is called {kind!r}", why="known are sqrt-hann and hann")
    return np.sqrt(hann) if kind == "sqrt-hann" else hann


def stft(
    values: dict[str, Array], *, sample_rate: int, length: int, hop: int, window: str, result: str
) -> dict[str, Array]:
    """``audio (samples,)`` to ``result (1, length // 2 + 1, frames, 2)``, float32, real and imaginary parts last.

    The signal is reflected by half a window at both ends, so frame ``t`` is centred on sample ``t * hop``.

    Args:
        values: must hold ``audio`` and ``sample_rate``.
        sample_rate: the rate in Hz the model was trained for.
        length: samples per window.
        hop: samples from frame to frame.
        window: name of the window.
        result: under which name to return the spectrum.

    Raises:
        Refused: ``wrong-sample-rate``, or ``bad-sample`` for a signal shorter than half a window.
    """
    audio = np.asarray(values["audio"], np.float64)
    rate = int(values["sample_rate"])
    if rate != sample_rate:
        raise Refused(
            "wrong-sample-rate",
            f"the recording has {rate} Hz, the model needs {sample_rate} Hz",
            why="at another rate every frequency is another bin, and the result is noise",
            next=f"sox INPUT -r {sample_rate} OUTPUT",
        )
    half = length // 2
    if audio.ndim != 1 or audio.size <= half:
        raise Refused(
            "bad-sample",
            f"the recording has shape {audio.shape}",
            why=f"one channel of more than {half} samples is needed to fill a window",
            next="give a longer mono recording",
        )
    padded = np.pad(audio, half, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]
    spectrum = np.fft.rfft(frames * _window(window, length), axis=1).T
    stacked = np.stack([spectrum.real, spectrum.imag], axis=-1)[np.newaxis]
    return {result: stacked.astype(np.float32)}


def istft(
    values: dict[str, Array], *, sample_rate: int, length: int, hop: int, window: str, source: str
) -> dict[str, Array]:
    """``source (1, bins, frames, 2)`` to ``audio ((frames - 1) * hop,)``, float32: the least-squares inverse."""
    spectrum = np.asarray(values[source], np.float64)[0]
    frames = np.fft.irfft((spectrum[..., 0] + 1j * spectrum[..., 1]).T, length, axis=1)
    shape = _window(window, length)
    total = length + hop * (len(frames) - 1)
    audio, envelope = np.zeros(total), np.zeros(total)
    for index, frame in enumerate(frames * shape):
        audio[index * hop : index * hop + length] += frame
        envelope[index * hop : index * hop + length] += shape**2
    half = length // 2
    kept = slice(half, total - half)
    inside = audio[kept] / np.maximum(envelope[kept], SMALLEST_ENVELOPE)
    return {"audio": inside.astype(np.float32), "sample_rate": np.array(sample_rate)}
