"""Short-time Fourier transform and its inverse in numpy, equal to ``torch.stft(center=True)`` and ``torch.istft``.

:func:`stft` and :func:`istft` take a whole recording and are host steps. :class:`StreamingSTFT` and
:class:`StreamingISTFT` are for applications that hear or play a signal while it goes on; they give the same frames and
the same samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Refused
from exporter.host.values import Array, Values, bad_setting, required

# Below this the overlapped squared windows cannot be divided by.
SMALLEST_ENVELOPE = 1e-11


def window_of(kind: str, length: int) -> NDArray[np.float64]:
    """A periodic window; ``sqrt-hann`` squares to a Hann window, which overlaps to a constant at half its length.

    Raises:
        Refused: ``unknown-step`` for another name.
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    if kind not in ("sqrt-hann", "hann"):
        raise Refused("unknown-step", f"no window is called {kind!r}", why="known are sqrt-hann and hann")
    return np.sqrt(hann) if kind == "sqrt-hann" else hann


def mono(values: Values, name: str, sample_rate: int, step: str) -> NDArray[np.float64]:
    """The recording of that name, after looking at its rate and shape.

    Raises:
        Refused: ``wrong-sample-rate``; ``bad-sample`` for a missing recording or more than one channel.
    """
    audio = np.asarray(required(values, name, step), np.float64)
    rate = int(required(values, "sample_rate", step))
    if rate != sample_rate:
        raise Refused(
            "wrong-sample-rate",
            f"the recording has {rate} Hz, the model needs {sample_rate} Hz",
            why="at another rate every frequency is another bin, and the result is noise",
            next=f"sox INPUT -r {sample_rate} OUTPUT",
        )
    if audio.ndim != 1:
        raise _unfit(audio.shape, "one channel is needed")
    return audio


def stft(values: Values, *, sample_rate: int, length: int, hop: int, window: str, result: str) -> Values:
    """``audio (samples,)`` to ``result (1, length // 2 + 1, frames, 2)``, float32, real and imaginary parts last.

    The signal is reflected by half a window at both ends, so frame ``t`` is centred on sample ``t * hop``.

    Args:
        values: must hold ``audio`` and ``sample_rate``. Where they hold none but already ``result``, nothing is done.
        sample_rate: the rate in Hz the model was trained for.
        length: samples per window.
        hop: samples from frame to frame.
        window: name of the window.
        result: under which name to return the spectrum.

    Raises:
        Refused: ``wrong-sample-rate``, or ``bad-sample`` for a signal shorter than half a window.
    """
    if "audio" not in values and result in values:
        return {}
    audio = mono(values, "audio", sample_rate, "stft")
    half = length // 2
    if audio.size <= half:
        raise _unfit(audio.shape, f"one channel of more than {half} samples is needed to fill a window")
    padded = np.pad(audio, half, mode="reflect")
    return {result: _transformed(padded, window_of(window, length), hop)}


def istft(values: Values, *, sample_rate: int, length: int, hop: int, window: str, source: str) -> Values:
    """``source (1, bins, frames, 2)`` to ``audio ((frames - 1) * hop,)``, float32: the least-squares inverse."""
    inverse = StreamingISTFT(length=length, hop=hop, window=window)
    audio = np.concatenate([inverse.push(required(values, source, "istft")), inverse.finish()])
    return {"audio": audio, "sample_rate": np.array(sample_rate)}


class StreamingSTFT:
    """:func:`stft` of a signal that arrives in pieces of any size.

    Joined along axis 2, what :meth:`push` and one :meth:`finish` return is what :func:`stft` returns for the whole
    signal. A frame comes out as soon as the last sample of its window is there: half a window after its centre.
    """

    def __init__(self, *, length: int = 512, hop: int = 256, window: str = "sqrt-hann") -> None:
        self._window, self._hop, self._half = window_of(window, length), hop, length // 2
        self._waiting, self._tail = np.zeros(0), np.zeros(0)
        self._started = False

    def push(self, samples: Array) -> NDArray[np.float32]:
        """Takes the next samples ``(n,)``; returns the frames ``(1, bins, frames, 2)`` that are complete now."""
        new = np.asarray(samples, np.float64)
        self._waiting = np.concatenate([self._waiting, new])
        # The end will be mirrored in the samples before it, also in those that no frame waits for any more.
        self._tail = np.concatenate([self._tail, new])[-self._half - 1 :]
        if not self._started and self._waiting.size > self._half:
            self._waiting = np.pad(self._waiting, (self._half, 0), mode="reflect")
            self._started = True
        return self._frames() if self._started else _transformed(np.zeros(0), self._window, self._hop)

    def finish(self) -> NDArray[np.float32]:
        """The frames whose windows reach beyond the end; the next sample pushed begins a new signal.

        Raises:
            Refused: ``bad-sample`` for a signal shorter than half a window, as :func:`stft`.
        """
        if not self._started:
            raise _unfit(self._waiting.shape, f"more than {self._half} samples are needed to fill a window")
        self._waiting = np.concatenate([self._waiting, self._tail[-2::-1]])
        last = self._frames()
        self._waiting, self._tail, self._started = np.zeros(0), np.zeros(0), False
        return last

    def _frames(self) -> NDArray[np.float32]:
        count = max(0, (self._waiting.size - len(self._window)) // self._hop + 1)
        frames = _transformed(self._waiting, self._window, self._hop)
        self._waiting = self._waiting[count * self._hop :]
        return frames


class StreamingISTFT:
    """:func:`istft` of frames that arrive one by one: joined, the samples are those of the whole."""

    def __init__(self, *, length: int = 512, hop: int = 256, window: str = "sqrt-hann") -> None:
        if not 0 < hop <= length // 2:
            raise bad_setting("istft", f"hop {hop} of windows of {length}", "every sample lies in two windows or more")
        self._window, self._hop = window_of(window, length), hop
        self._begin()

    def push(self, spectrum: Array) -> NDArray[np.float32]:
        """Takes frames ``(1, bins, frames, 2)``; returns the samples ``(n,)`` that no later frame changes."""
        pairs = np.asarray(spectrum, np.float64)[0]
        frames = np.fft.irfft((pairs[..., 0] + 1j * pairs[..., 1]).T, len(self._window), axis=1)
        done = [self._sum[:0]]
        for frame in frames * self._window:
            self._sum += frame
            self._envelope += self._window**2
            done.append(self._out(self._hop))
        return np.concatenate(done).astype(np.float32)

    def finish(self) -> NDArray[np.float32]:
        """The samples up to the last frame's centre; the next frame pushed begins a new signal."""
        last = self._out(len(self._window) // 2 - self._hop).astype(np.float32)
        self._begin()
        return last

    def _begin(self) -> None:
        self._sum, self._envelope = np.zeros(len(self._window)), np.zeros(len(self._window))
        self._before = len(self._window) // 2  # samples before the signal's first one, which the reflection made

    def _out(self, count: int) -> NDArray[np.float64]:
        """The first ``count`` samples, which are moved out; those before the signal's start are dropped."""
        samples = self._sum[:count] / np.maximum(self._envelope[:count], SMALLEST_ENVELOPE)
        self._sum = np.append(self._sum[count:], np.zeros(count))
        self._envelope = np.append(self._envelope[count:], np.zeros(count))
        dropped = min(self._before, count)
        self._before -= dropped
        return samples[dropped:]


def _transformed(signal: NDArray[np.float64], window: NDArray[np.float64], hop: int) -> NDArray[np.float32]:
    """``(1, bins, frames, 2)`` of every window that lies wholly in the signal."""
    bins = len(window) // 2 + 1
    if signal.size < len(window):
        return np.zeros((1, bins, 0, 2), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(signal, len(window))[::hop]
    spectrum = np.fft.rfft(frames * window, axis=1).T
    return np.stack([spectrum.real, spectrum.imag], axis=-1)[np.newaxis].astype(np.float32)


def _unfit(shape: tuple[int, ...], why: str) -> Refused:
    return Refused("bad-sample", f"the recording has shape {shape}", why=why, next="give a longer mono recording")
