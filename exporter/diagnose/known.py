"""What the values inside a graph should be for one input, and how far off others are, in units of rounding."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exporter.diagnose.oracle import is_float, walk
from exporter.parity.ladder import ELEMENT_GUARD, RUNGS, UNIT_ROUNDOFF
from exporter.parity.measure import l2, relative

Array = NDArray[Any]

# What a verdict allows one element, over what it allows all of them together.
ELEMENTS = ELEMENT_GUARD / RUNGS["portable"].bound
# So many bytes of the values of one input are held in memory; the rest lies on disk.
MOST_HELD = 256 << 20
# An error this many times rounding's is one at any place, whatever it does to the answer; and none is below the least.
LEAST, ENOUGH = 4.0, 64.0


@dataclass(frozen=True)
class Noise:
    """What rounding alone makes a value err by: relative to all of it, and its largest element."""

    relative: float = 0.0
    largest: float = 0.0


@dataclass
class Known:
    """The right values of a graph for one input: in memory, those beyond :data:`MOST_HELD` on disk.

    Attributes:
        folder: where those lie; it is this one's alone.
        unit: the unit roundoff of the precision.
        noise: what rounding makes of each.
        order: the names of the values, as they are computed.
    """

    folder: Path
    unit: float
    noise: dict[str, Noise] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    _held: dict[str, Array] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)
    _room: int = MOST_HELD

    def __contains__(self, name: str) -> bool:
        return name in self.noise

    def add(self, name: str, right: Array, rounded: Array) -> None:
        """Takes a value as it should be, and as rounding alone makes it."""
        if right.nbytes <= self._room:
            self._room -= right.nbytes
            self._held[name] = right
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._files[name] = self.folder / f"{len(self._files)}.npy"
            np.save(self._files[name], right)
        self.order.append(name)
        self.noise[name] = _noise(rounded, right)

    def value(self, name: str) -> Array:
        """The value as it should be."""
        if name in self._held:
            return self._held[name]
        array: Array = np.load(self._files[name])
        return array

    def drop(self) -> None:
        """Gives up the room in memory and on disk; nothing is known any more."""
        for kept in (self._held, self._files, self.noise, self.order):
            kept.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def off(self, values: Mapping[str, Array]) -> dict[str, float]:
        """How far off values are, in units of what rounding makes them err by; those that are not known are left out.

        Infinite where the shape is another, an integer differs, or a number is none.
        """
        known = {name: value for name, value in values.items() if name in self}
        return {name: off(value, self.value(name), self.noise[name], self.unit) for name, value in known.items()}


def known(model: onnx.ModelProto, feeds: Mapping[str, Array], folder: Path, precision: str = "fp32") -> Known:
    """Every value of a graph, right and rounded to a precision, for these inputs."""
    found = Known(folder, UNIT_ROUNDOFF[precision])
    emulated = precision if precision in ("fp16", "bf16") else "fp32"
    for name, value in feeds.items():
        found.add(name, np.asarray(value, np.float64) if is_float(value) else value, value)
    for right, rounded in zip(walk(model, feeds), walk(model, feeds, emulated), strict=True):
        for name, value in right.outputs.items():
            found.add(name, value, rounded.outputs[name])
    return found


def off(value: Array, right: Array, noise: Noise, unit: float) -> float:
    """How far off a value is, in units of what rounding makes it err by."""
    if value.shape != right.shape:
        return float("inf")
    if not is_float(right):
        return 0.0 if np.array_equal(value, right) else float("inf")
    finite = np.isfinite(right)
    if not np.array_equal(np.isfinite(value), finite) or value[~finite].tolist() != right[~finite].tolist():
        return 0.0 if np.isnan(right).any() else float("inf")  # where the model itself gives no number, nothing is off
    difference = np.where(finite, value.astype(np.float64), 0.0) - np.where(finite, right, 0.0)
    size = np.where(finite, right, 0.0)
    whole = relative(l2(difference), l2(size)) / max(noise.relative, unit)
    largest = float(np.max(np.abs(difference), initial=0.0))
    least = max(noise.largest, unit * float(np.max(np.abs(size), initial=0.0)))
    element = relative(largest, least) / ELEMENTS
    return 0.0 if not np.isfinite(noise.relative) else max(whole, element)


def _noise(rounded: Array, right: Array) -> Noise:
    if not is_float(right) or rounded.shape != right.shape:
        return Noise()
    finite = np.isfinite(right)
    difference = np.where(finite, rounded.astype(np.float64), 0.0) - np.where(finite, right, 0.0)
    with np.errstate(invalid="ignore"):
        return Noise(
            relative(l2(difference), l2(np.where(finite, right, 0.0))), float(np.max(np.abs(difference), initial=0.0))
        )


def bound(final: Iterable[float]) -> float:
    """From how far off on a value is wrong, where the answer is so far off.

    Rounding of another order makes a value a few times as wrong as ours. An error is no smaller where it is born than
    where it arrives, so between both there is room; a small one leaves little.
    """
    return min(ENOUGH, max(LEAST, float(np.sqrt(max(final, default=0.0)))))
