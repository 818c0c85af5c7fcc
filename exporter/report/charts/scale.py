"""Axes: values to places, and where the ticks are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# A range wider than this is read on a logarithmic axis.
WIDE = 8.0
MOST_TICKS = 6


@dataclass(frozen=True)
class Scale:
    """A range of values on an axis."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one; what lies outside is drawn at the end."""
        if self.log:
            low = math.log(self.low)
            part = (math.log(max(value, self.low)) - low) / (math.log(self.high) - low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return min(max(part, 0.0), 1.0)

    def ticks(self, most: int = MOST_TICKS) -> list[float]:
        """Round values within the range."""
        return _decades(self.low, self.high, most) if self.log else _round_steps(self.low, self.high, most)


def linear(values: Iterable[float], zero: bool = False) -> Scale:
    """A linear axis over the values with some room at both ends; from 0 where asked for."""
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min([*found, 0.0] if zero else found), max(found)
    room = 0.04 * (high - low) or abs(high) * 0.04 or 0.5
    return Scale(low if zero and low == 0.0 else low - room, high + room)


def logarithmic(values: Iterable[float]) -> Scale:
    """A logarithmic axis over the values above 0, from whole decade to whole decade where it spans one."""
    found = [value for value in values if math.isfinite(value) and value > 0] or [1e-1, 1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    return Scale(10.0**low, 10.0 ** max(high, low + 1), log=True)


def durations(values: Iterable[float]) -> Scale:
    """An axis of durations: linear where the largest is near the smallest, else logarithmic."""
    found = [value for value in values if value > 0]
    if not found or max(found) <= WIDE * min(found):
        return linear(found)
    return Scale(min(found) / 1.15, max(found) * 1.15, log=True)


def _decades(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 1:
        found = [10.0**first * part for part in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
        return [value for value in found if low <= value <= high]
    step = -(-(last - first + 1) // most)
    return [10.0**power for power in range(first, last + 1, step)]


def _round_steps(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in (1, 2, 5, 10) if power * part >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    # Rounded to the step's own digits: 0.30000000000000004 is no tick.
    digits = max(0, -math.floor(math.log10(step)) + 1)
    return [round(index * step, digits) for index in range(first, math.floor(high / step + 1e-9) + 1)]
