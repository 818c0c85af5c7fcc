"""How far an answer is from the one that a node test expects: judged by ONNX's own runner, told in a line of ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx.backend.test.runner import Runner


def difference(
    names: Sequence[str], outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray], rtol: float, atol: float
) -> str:
    """Nothing where all outputs are as expected; else the first that is not, and how far off it is."""
    if len(outputs) != len(expected):
        return f"{len(outputs)} outputs where {len(expected)} are expected"
    for name, output, wanted in zip(names, outputs, expected, strict=True):
        try:
            Runner.assert_similar_outputs([wanted], [np.asarray(output)], rtol, atol)
        except (AssertionError, TypeError):
            return f"{name} {_told(np.asarray(output), wanted, rtol, atol)}"
    return ""


def _told(output: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> str:
    if output.shape != wanted.shape:
        return f"has the shape {output.shape}, expected is {wanted.shape}"
    if output.dtype != wanted.dtype:
        return f"is of {output.dtype}, expected is {wanted.dtype}"
    found, right = _wide(output), _wide(wanted)
    with np.errstate(all="ignore"):
        wrong = ~np.isclose(found, right, rtol=rtol, atol=atol, equal_nan=True)
        off = np.abs(found - right)[wrong]
    if not wrong.any():  # in types that numpy compares otherwise
        return "differs"
    far = f"by up to {off.max():.3g}{_share(off.max(), right)}" if np.isfinite(off).all() else "in what is not finite"
    index = np.argwhere(wrong)[0]
    place = tuple(int(i) for i in index)
    one = f"{_text(found[place])} where {_text(right[place])} is expected"
    return f"differs {far} in {int(wrong.sum())} of {wrong.size} values, such as {one}"


def _share(off: float, right: np.ndarray) -> str:
    """A distance as a share of the largest expected value: 1e-7 of it is rounding of float32."""
    largest = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
    return f" ({off / largest:.1e} of the largest)" if largest else ""


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _text(value: np.generic) -> str:
    return f"{value:.6g}"
