"""Pictures to tensors: scale to floats, normalise, resize, clamp. Sizes are ``(1, C, H, W)``, colours are RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.host.values import Array, Values, bad_setting, names_in, required, unfit

WHITE = 255.0


def image(values: Values, *, result: str, high: float = 1.0, channels: int = 3) -> Values:
    """A picture as read from a file to ``result (1, channels, H, W)``, float32.

    Args:
        values: hold the picture under the name ``result``, or under ``image`` where there is only one: uint8
            ``(H, W, channels)``; or ``(H, W)``, gray, which becomes equal channels. A float array
            ``(1, channels, H, W)`` is taken as it is.
        result: under which name to return the tensor.
        high: what white becomes: 1 or 255.
        channels: how many the model takes.

    Raises:
        Refused: ``bad-sample`` for another type or shape; a colour picture is not made gray in silence.
    """
    picture = required(values, result if result in values else "image", "image")
    if picture.dtype.kind == "f" and picture.ndim == 4 and picture.shape[:2] == (1, channels):
        return {result: picture.astype(np.float32)}
    planes = picture[..., None] if picture.ndim == 2 else picture
    if planes.shape[-1:] == (1,):
        planes = np.repeat(planes, channels, axis=-1)
    if picture.dtype != np.uint8 or planes.ndim != 3 or planes.shape[-1] != channels or 0 in planes.shape:
        raise unfit(
            "image",
            f"{result} is {picture.dtype} {picture.shape}",
            why=f"a picture is uint8 (H, W, {channels}) or gray (H, W), and a tensor is float (1, {channels}, H, W)",
            next=f"convert the picture to {'gray' if channels == 1 else f'{channels} channels of 8 bits'}",
        )
    scaled = planes.astype(np.float32) * np.float32(high / WHITE)
    return {result: np.ascontiguousarray(scaled.transpose(2, 0, 1))[np.newaxis]}


def normalise(values: Values, *, of: str | Sequence[str], mean: Sequence[float], std: Sequence[float]) -> Values:
    """``(x - mean) / std`` for every channel of ``(1, C, H, W)``.

    Raises:
        Refused: ``bad-sample`` when there are not as many channels as means; ``unknown-step`` for other than one
            positive deviation per mean.
    """
    if len(mean) != len(std) or min(std, default=0.0) <= 0:
        raise bad_setting("normalise", f"mean {list(mean)} and std {list(std)}", "each channel has both, std above 0")
    found: Values = {}
    for name in names_in(of):
        value = required(values, name, "normalise")
        if value.ndim != 4 or value.shape[1] != len(mean):
            why = f"it is normalised by {len(mean)} means, one per channel of (1, C, H, W)"
            raise unfit("normalise", f"{name} has shape {value.shape}", why, "give a picture with these channels")
        shift, scale = (np.asarray(numbers, np.float64)[:, None, None] for numbers in (mean, std))
        found[name] = ((_floats(value) - shift) / scale).astype(np.float32)
    return found


def clamp(
    values: Values, *, of: str | Sequence[str], low: float = 0.0, high: float = 1.0, result: str | None = None
) -> Values:
    """Values cut to ``low .. high``; under the name ``result`` where one is given.

    Raises:
        Refused: ``unknown-step`` when several values would get one name.
    """
    names = names_in(of)
    if result is not None and len(names) != 1:
        raise bad_setting("clamp", f"{len(names)} values would be called {result!r}", "one name is one value")
    return {result or name: np.clip(_floats(required(values, name, "clamp")), low, high) for name in names}


def resize(values: Values, *, of: str | Sequence[str], height: int, width: int) -> Values:
    """``(..., H, W)`` to ``(..., height, width)``, float32: bilinear, averaging over what a smaller pixel covers.

    Equal to ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)`` and to Pillow's ``BILINEAR``.
    """
    found: Values = {}
    for name in names_in(of):
        value = _floats(required(values, name, "resize"))
        rows, columns = _weights(value.shape[-2], height), _weights(value.shape[-1], width)
        found[name] = np.asarray(rows @ value @ columns.T, np.float32)
    return found


def _weights(size: int, wanted: int) -> NDArray[np.float64]:
    """``(wanted, size)``: how much of every old pixel a new one takes; triangles as wide as the new pixel, or the old
    one where that is wider, cut at the border and scaled to a sum of one."""
    if wanted < 1 or size < 1:
        raise bad_setting("resize", f"{size} pixels to {wanted}", "both are at least 1")
    scale = size / wanted
    centre = (np.arange(wanted)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(size)[None, :] + 0.5 - centre) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _floats(value: Array) -> NDArray[Any]:
    return np.asarray(value, value.dtype if value.dtype.kind == "f" else np.float32)
