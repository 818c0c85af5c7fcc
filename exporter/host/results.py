"""Outputs to what a person asks for: a disparity map, a score."""

from __future__ import annotations

import numpy as np

from exporter.host.values import Values, bad_setting, required, unfit


def disparity(values: Values, *, source: str, sign: float = 1.0, result: str = "disparity") -> Values:
    """``source (1, 1, H, W)`` to ``result (H, W)``, float32: pixels, positive to the left.

    Args:
        values: hold the map.
        source: its name; axes of size 1 before height and width fall away.
        sign: -1 for a model that gives the flow from the left to the right view, which is the negative disparity.
        result: under which name to return it.

    Raises:
        Refused: ``bad-sample`` for more than one map, ``unknown-step`` for another sign.
    """
    if sign not in (1, -1):
        raise bad_setting("disparity", f"sign {sign}", "a disparity is as the model gives it (1) or negated (-1)")
    value = required(values, source, "disparity")
    if value.ndim < 2 or any(size != 1 for size in value.shape[:-2]):
        why = "a disparity map is one value per pixel of one image"
        raise unfit("disparity", f"{source} has shape {value.shape}", why, "give one pair at a time")
    return {result: np.asarray(value.reshape(value.shape[-2:]), np.float32) * np.float32(sign)}


def score(values: Values, *, source: str, result: str = "score") -> Values:
    """``source (B, 1)`` or ``(B,)`` to ``result (B,)``, float32.

    Raises:
        Refused: ``bad-sample`` for more than one number per image.
    """
    value = required(values, source, "score")
    if value.ndim == 0 or any(size != 1 for size in value.shape[1:]):
        raise unfit("score", f"{source} has shape {value.shape}", "a score is one number per image", "name the score")
    return {result: np.asarray(value.reshape(-1), np.float32)}
