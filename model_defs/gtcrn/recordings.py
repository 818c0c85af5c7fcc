"""Real speech for the cases, where it is at hand: the folder that the variable ``EXPORTER_DATA`` names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from exporter.host import files
from exporter.spec import Sample

# Two seconds: a stream is judged on all of their frames.
SAMPLES = 32000
# How far the added noise lies below the speech.
MIXED_DB = 5.0


def recordings() -> Iterator[Sample]:
    """A noisy recording, and enhanced speech with noise added to it.

    The truth of ``mixed`` is no studio recording: it is what GTCRN itself made of a noisy one
    (``enhanced_reference.wav``), with noise :data:`MIXED_DB` below it. The task metrics so say how much of that noise
    is removed, and are not those of the published test sets.

    Yields:
        ``recording``, without truth, and ``mixed``, each where its file is in the folder; nothing where the variable
        is not set.
    """
    named = os.environ.get("EXPORTER_DATA")
    if not named:  # the path of an empty text is the current folder
        return
    folder = Path(named) / "gtcrn"
    noisy, clean = folder / "noisy.wav", folder / "enhanced_reference.wav"
    if noisy.is_file():
        yield Sample("recording", _cut(files.read(noisy)))
    if clean.is_file():
        given = _cut(files.read(clean))
        speech = given["audio"]
        yield Sample("mixed", {**given, "audio": _mixed(speech)}, {"audio": speech})


def other_recordings() -> Iterator[Sample]:
    """Two seconds from either end of the recordings, for scales of int8: none of it is in :func:`recordings`.

    Yields:
        Two pieces of the noisy recording, and two of the enhanced one with other noise; nothing where the files are
        not at hand.
    """
    named = os.environ.get("EXPORTER_DATA")
    if not named:
        return
    folder = Path(named) / "gtcrn"
    noisy, clean = folder / "noisy.wav", folder / "enhanced_reference.wav"
    for path in (noisy, clean):
        if not path.is_file():
            continue
        whole = files.read(path)
        for seed, audio in enumerate((whole["audio"][:SAMPLES], whole["audio"][-SAMPLES:]), start=1):
            given = audio if path is noisy else _mixed(audio, seed)
            yield Sample(f"{path.stem}-{seed}", {**whole, "audio": given})


def _cut(values: files.Values) -> files.Values:
    """The middle of a recording: its ends are often silent."""
    audio = values["audio"]
    start = max(0, (len(audio) - SAMPLES) // 2)
    return {**values, "audio": audio[start : start + SAMPLES]}


def _mixed(speech: np.ndarray, seed: int = 0) -> np.ndarray:
    """``speech (samples,)`` with white noise :data:`MIXED_DB` below it."""
    noise = np.random.default_rng(seed).standard_normal(len(speech))
    scale = np.sqrt(np.mean(speech.astype(np.float64) ** 2) / 10 ** (MIXED_DB / 10))
    return (speech + scale * noise).astype(np.float32)
