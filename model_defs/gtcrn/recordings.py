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
# Noise of known strength over what was enhanced before is speech whose clean form is known.
MIXED_DB = 5.0


def recordings() -> Iterator[Sample]:
    """A noisy recording, and speech with noise added to it, whose truth is the speech; none without the folder."""
    folder = Path(os.environ.get("EXPORTER_DATA", "")) / "gtcrn"
    noisy, clean = folder / "noisy.wav", folder / "enhanced_reference.wav"
    if noisy.is_file():
        yield Sample("recording", _cut(files.read(noisy)))
    if clean.is_file():
        given = _cut(files.read(clean))
        speech = given["audio"]
        yield Sample("mixed", {**given, "audio": _mixed(speech)}, {"audio": speech})


def _cut(values: files.Values) -> files.Values:
    """The middle of a recording: its ends are often silent."""
    audio = values["audio"]
    start = max(0, (len(audio) - SAMPLES) // 2)
    return {**values, "audio": audio[start : start + SAMPLES]}


def _mixed(speech: np.ndarray) -> np.ndarray:
    """``speech (samples,)`` with white noise :data:`MIXED_DB` below it."""
    noise = np.random.default_rng(0).standard_normal(len(speech))
    scale = np.sqrt(np.mean(speech.astype(np.float64) ** 2) / 10 ** (MIXED_DB / 10))
    return (speech + scale * noise).astype(np.float32)
