"""What slides over a signal, in numpy: convolutions and pools, a tap of the kernel at a time over the whole signal.

ONNX's reference evaluator goes output by output, or gathers every window first; these do the same sums in the time of
so many products of matrices, and hold no windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Sliding:
    """How a kernel slides, axis by axis.

    Attributes:
        kernel: its sizes.
        strides: how far it goes each time.
        dilations: how far its taps are apart.
        pads: what is put before every axis, then after every axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(
        cls,
        kernel: Sequence[int],
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        pads: Sequence[int] | None,
    ) -> Sliding:
        """Of the attributes of a node; what it leaves out is 1, and no padding."""
        ones = (1,) * len(kernel)
        return cls(
            tuple(kernel), tuple(strides or ones), tuple(dilations or ones), tuple(pads or (0,) * (2 * len(kernel)))
        )

    @property
    def before(self) -> tuple[int, ...]:
        """What is put before every axis."""
        return self.pads[: len(self.kernel)]

    @property
    def after(self) -> tuple[int, ...]:
        """What is put after every axis."""
        return self.pads[len(self.kernel) :]

    @property
    def reach(self) -> tuple[int, ...]:
        """How much of every axis the kernel covers, holes among it."""
        return tuple((size - 1) * apart + 1 for size, apart in zip(self.kernel, self.dilations, strict=True))

    def padded(self, x: Array, value: float = 0.0) -> Array:
        """``x (N, C, ...)`` with its padding."""
        around = [(0, 0), (0, 0), *zip(self.before, self.after, strict=True)]
        return np.pad(x, around, constant_values=value) if any(self.pads) else x

    def places(self, padded: Array) -> tuple[int, ...]:
        """At how many places the kernel lies, axis by axis."""
        sizes = zip(padded.shape[2:], self.reach, self.strides, strict=True)
        return tuple((size - reach) // stride + 1 for size, reach, stride in sizes)

    def taps(self, places: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
        """Every tap of the kernel, and which part of a signal ``(N, C, ...)`` it meets as the kernel slides."""
        for tap in np.ndindex(*self.kernel):
            first = [at * apart for at, apart in zip(tap, self.dilations, strict=True)]
            ends = zip(first, places, self.strides, strict=True)
            yield tap, (..., *(slice(at, at + (count - 1) * step + 1, step) for at, count, step in ends))


def convolved(x: Array, w: Array, sliding: Sliding, group: int = 1) -> Array:
    """A convolution.

    Args:
        x: ``(N, C, ...)``.
        w: ``(M, C / group, *kernel)``.
        sliding: how it slides.
        group: into so many parts the channels fall.

    Returns:
        ``(N, M, ...)``; float32 for values of two bytes, whose sums would lose what each of them has.
    """
    x, w = _summable(x), _summable(w)
    padded = sliding.padded(x)
    places, batch = sliding.places(padded), x.shape[0]
    if min(places) < 1:
        raise ValueError(f"a kernel that covers {sliding.reach} does not fit into {padded.shape[2:]}")
    weights = _by_tap(w.reshape(group, w.shape[0] // group, *w.shape[1:]))
    y = np.zeros((batch, group, w.shape[0] // group, int(np.prod(places))), np.result_type(x, w))
    for tap, part in sliding.taps(places):
        y += _products(weights[tap], padded[part].reshape(batch, group, x.shape[1] // group, -1))
    return y.reshape(batch, w.shape[0], *places)


def transposed(x: Array, w: Array, sliding: Sliding, group: int = 1, extra: Sequence[int] = ()) -> Array:
    """A transposed convolution.

    Args:
        x: ``(N, C, ...)``.
        w: ``(C, M / group, *kernel)``.
        sliding: how it slides over what it gives; ``pads`` are cut off there.
        group: into so many parts the channels fall.
        extra: how much longer every axis of the answer is at its end.

    Returns:
        ``(N, M, ...)``; float32 for values of two bytes.
    """
    x, w = _summable(x), _summable(w)
    places, batch, each = x.shape[2:], x.shape[0], w.shape[1]
    longer = tuple(extra) or (0,) * len(places)
    sizes = zip(places, sliding.strides, sliding.reach, longer, strict=True)
    whole = [(count - 1) * stride + reach + more for count, stride, reach, more in sizes]
    weights = _by_tap(np.swapaxes(w.reshape(group, w.shape[0] // group, *w.shape[1:]), 1, 2))
    y = np.zeros((batch, group * each, *whole), np.result_type(x, w))
    given = x.reshape(batch, group, x.shape[1] // group, -1)
    for tap, part in sliding.taps(places):
        y[part] += _products(weights[tap], given).reshape(batch, group * each, *places)
    kept = zip(sliding.before, sliding.after, whole, strict=True)
    cut: tuple[Any, ...] = (..., *(slice(before, size - after) for before, after, size in kept))
    answer: Array = y[cut]
    return answer


def averaged(x: Array, sliding: Sliding, padding_counts: bool) -> Array:
    """The mean of every window of ``x (N, C, ...)``; padding is a zero among them, or none of them.

    Values of two bytes give float32.
    """
    x = _summable(x)
    counts = sliding.padded(np.ones((1, 1, *x.shape[2:]), x.dtype), float(padding_counts))
    return _summed(sliding.padded(x), sliding) / _summed(counts, sliding)


def largest(x: Array, sliding: Sliding) -> Array:
    """The largest of every window of ``x (N, C, ...)``, floats; padding is none of them."""
    padded = sliding.padded(x, -np.inf)
    places = sliding.places(padded)
    y = np.full((*x.shape[:2], *places), -np.inf, x.dtype)
    for _, part in sliding.taps(places):
        np.maximum(y, padded[part], out=y)
    return y


def _summable(x: Array) -> Array:
    """The same in a type that sums of it may be taken in: float16 and bfloat16 in float32."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


def _summed(padded: Array, sliding: Sliding) -> Array:
    places = sliding.places(padded)
    y = np.zeros((*padded.shape[:2], *places), padded.dtype)
    for _, part in sliding.taps(places):
        y += padded[part]
    return y


def _by_tap(w: Array) -> Array:
    """``(group, M, C, *kernel)`` as ``(*kernel, group, M, C)``, each matrix in one piece as a product wants it."""
    return np.ascontiguousarray(np.moveaxis(w, (0, 1, 2), (-3, -2, -1)))


def _products(w: Array, x: Array) -> Array:
    """``w (group, M, C)`` by ``x (N, group, C, P)``; of one channel a product of numbers, which is faster."""
    return w * x if w.shape[-1] == 1 else np.matmul(w, x)
