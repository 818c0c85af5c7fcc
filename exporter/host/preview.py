"""What a person looks at of a model's values: recordings, pictures, disparity maps and scores, made small.

A bundle keeps it of what an artifact gave, so that a page can show it where no runtime is; and :func:`undone` gets it
back from what a graph was given. Everything here is a function of its arguments, in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.host.frames import unframe
from exporter.host.spectrum import istft
from exporter.host.tiles import crop
from exporter.host.values import Array, Values
from exporter.spec import HostStep

AUDIO, RATE, IMAGE, DISPARITY, SCORE = "audio", "sample_rate", "image", "disparity", "score"
SECONDS = 4.0  # of a recording that are kept
SIDE = 256  # pixels of a picture's longer side, at most
MOST_CASES = 3  # whose recordings and pictures are kept; scores are kept of all


def previews(values: Mapping[str, Array]) -> Values:
    """What there is to look at, small: int16 recordings, uint8 pictures ``(H, W, C)``, float32 maps and scores.

    Args:
        values: what the host steps after a graph gave. Values of other names, and of a form that cannot be shown, are
            left out.
    """
    found: Values = {}
    if AUDIO in values and RATE in values and (audio := _recording(values[AUDIO], int(values[RATE]))) is not None:
        found |= {AUDIO: audio, RATE: np.array(int(values[RATE]), np.int64)}
    for name, small in ((IMAGE, _picture), (DISPARITY, _map), (SCORE, _scores)):
        if name in values and (made := small(values[name])) is not None:
            found[name] = made
    return found


def undone(steps: Sequence[HostStep], inputs: Mapping[str, Array], context: Mapping[str, Array]) -> dict[str, Values]:
    """What the host steps before a graph were given, as :func:`previews`, by input; inputs that none made are left out.

    Args:
        steps: those steps.
        inputs: what they gave: the inputs of the graph.
        context: the records that they left.
    """
    found: dict[str, Values] = {}
    for name, value in inputs.items():
        made = [step for step in steps if step.options.get("to") == name]
        if made:
            shown = previews(_given(made[0], steps, name, value, context))
            found |= {name: shown} if shown else {}
    return found


def _given(made: HostStep, steps: Sequence[HostStep], name: str, value: Array, context: Mapping[str, Array]) -> Values:
    """The value that a step made an input from."""
    options = dict(made.options)
    if made.step == "stft":
        kept = {key: options[key] for key in ("sample_rate", "length", "hop", "window")}
        return istft({name: value}, source=name, **kept)
    if made.step == "frames":
        return unframe({**context, name: value}, sample_rate=options["sample_rate"], source=name, like=name)
    if made.step == "image":
        picture = np.asarray(value, np.float64)
        for step in steps:
            if step.step == "normalise" and name in _names(step.options.get("of")):
                mean, std = (np.asarray(step.options[key], np.float64)[:, None, None] for key in ("mean", "std"))
                picture = picture * std + mean
        whole = {name: picture / float(options.get("high", 1.0))}
        return {IMAGE: (whole | crop({**context, **whole}, of=name, like=name))[name]}
    return {}


def _names(of: object) -> list[object]:
    return list(of) if isinstance(of, (list, tuple)) else [of]


def _recording(audio: Array, rate: int) -> NDArray[np.int16] | None:
    if audio.ndim != 1 or audio.size == 0 or not 1000 <= rate <= 192_000 or not np.isfinite(audio).all():
        return None
    # As a .wav file is written: rounded down.
    steps = np.floor(np.asarray(audio[: int(SECONDS * rate)], np.float64) * 32768.0)
    return np.clip(steps, -32768, 32767).astype(np.int16)


def _picture(image: Array) -> NDArray[np.uint8] | None:
    """``(1, C, H, W)`` from 0 to 1 to ``(H, W, C)``."""
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] not in (1, 3) or 0 in image.shape:
        return None
    planes = smaller(np.nan_to_num(np.asarray(image[0], np.float64)))
    return np.rint(255.0 * np.clip(planes, 0.0, 1.0)).astype(np.uint8).transpose(1, 2, 0)


def _map(disparity: Array) -> NDArray[np.float32] | None:
    """``(H, W)``; what is unknown stays no number."""
    if disparity.ndim != 2 or 0 in disparity.shape:
        return None
    return np.asarray(smaller(np.asarray(disparity, np.float64)), np.float32)


def _scores(score: Array) -> NDArray[np.float32] | None:
    return np.asarray(score, np.float32).reshape(-1) if score.size else None


def smaller(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(..., H, W)`` so that no side is above :data:`SIDE`: each new pixel is the mean of a square of old ones."""
    height, width = planes.shape[-2:]
    factor = -(-max(height, width) // SIDE)
    rows, columns = max(height // factor, 1), max(width // factor, 1)
    if factor == 1 or min(height, width) < factor:
        return planes
    cut = planes[..., : rows * factor, : columns * factor]
    return np.asarray(cut.reshape(*planes.shape[:-2], rows, factor, columns, factor).mean(axis=(-3, -1)))


def bounded(found: Mapping[str, Values]) -> dict[str, Array]:
    """Previews of cases as ``CASE/NAME``: recordings, pictures and maps of the first few, scores of all."""
    kept: dict[str, Array] = {}
    pictured = 0
    for case, values in found.items():
        large = set(values) - {SCORE}
        few = pictured < MOST_CASES
        pictured += bool(large)
        kept |= {f"{case}/{name}": value for name, value in values.items() if few or name == SCORE}
    return kept
