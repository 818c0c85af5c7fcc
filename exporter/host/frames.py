"""Recordings cut into hops, for models that take samples and not spectra."""

from __future__ import annotations

import numpy as np

from exporter.host.spectrum import mono
from exporter.host.values import Values, bad_setting, required, unfit


def frames(
    values: Values, *, sample_rate: int, length: int, result: str, source: str = "audio", delay: int = 0
) -> Values:
    """``source (samples,)`` to ``result (1, N * length)``, float32: zeros after the end fill the last hop.

    Args:
        values: hold the recording and its ``sample_rate``. Where they hold none but already ``result``, nothing is
            done.
        sample_rate: the rate in Hz the model was trained for.
        length: samples per hop: what one call of the graph takes.
        result: under which name to return the signal.
        source: the recording's name.
        delay: how many samples the model's answer comes later; so many zeros follow the recording, so that the
            answer's end is heard.

    Returns:
        The signal, and ``RESULT.samples``: int64, how many samples there were.

    Raises:
        Refused: ``wrong-sample-rate``; ``bad-sample`` for an empty recording or more than one channel.
    """
    if length < 1 or delay < 0:
        raise bad_setting("frames", f"length {length}, delay {delay}", "a hop has a sample, and no answer comes early")
    if source not in values and result in values:
        return {}
    audio = mono(values, source, sample_rate, "frames")
    if audio.size == 0:
        raise unfit("frames", "the recording is empty", "there is nothing to run", "give a recording with samples")
    total = -(-(audio.size + delay) // length) * length
    signal = np.zeros((1, total), np.float32)
    signal[0, : audio.size] = audio
    return {result: signal, f"{result}.samples": np.array(audio.size, np.int64)}


def unframe(
    values: Values, *, sample_rate: int, source: str, like: str = "", result: str = "audio", delay: int = 0
) -> Values:
    """``source (1, samples)`` to ``result (samples,)`` and ``sample_rate``: what :func:`frames` did, undone.

    Args:
        values: hold the signal, and the record of ``frames`` where there is one.
        sample_rate: Hz.
        source: the signal's name.
        like: the name that ``frames`` gave; its record says where the recording ended. Without a record, all samples
            after the delay are returned.
        result: under which name to return the recording.
        delay: samples to drop at the start: how much later than its question the model answers.

    Raises:
        Refused: ``bad-sample`` for more than one channel.
    """
    signal = np.asarray(required(values, source, "unframe"), np.float32)
    if signal.ndim == 0 or any(size != 1 for size in signal.shape[:-1]):
        raise unfit("unframe", f"{source} has shape {signal.shape}", "a recording has one channel", "give one channel")
    audio = signal.reshape(-1)[delay:]
    if f"{like}.samples" in values:
        audio = audio[: int(values[f"{like}.samples"])]
    return {result: audio, "sample_rate": np.array(sample_rate)}
