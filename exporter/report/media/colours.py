"""Colours of maps: even steps of value are even steps of lightness, also without colour vision and in print.

Source: viridis and magma of matplotlib (CC0), sampled at nine places each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VIRIDIS = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 fde725"
MAGMA = "000004 1c1044 4f127b 812581 b5367a e55064 fb8761 fec287 fcfdbf"


def palette(anchors: str, count: int = 255) -> NDArray[np.uint8]:
    """``(count + 1, 3)``: colours from the lowest to the highest value, and a gray for what is unknown."""
    known = np.array([list(bytes.fromhex(anchor)) for anchor in anchors.split()], np.float64)
    places = np.linspace(0, len(known) - 1, count)
    low = np.minimum(places.astype(int), len(known) - 2)
    part = (places - low)[:, None]
    colours = known[low] * (1 - part) + known[low + 1] * part
    return np.concatenate([np.rint(colours), [[128, 128, 128]]]).astype(np.uint8)


def numbers(values: NDArray[np.floating], low: float, high: float, count: int = 255) -> NDArray[np.uint8]:
    """Values as numbers of colours; what is no number gets the gray."""
    span = (high - low) or 1.0
    with np.errstate(invalid="ignore"):
        found = np.clip((values - low) / span, 0.0, 1.0) * (count - 1)
    return np.where(np.isfinite(values), np.rint(np.nan_to_num(found)), count).astype(np.uint8)
