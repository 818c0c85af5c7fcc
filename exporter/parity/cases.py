"""Cases: the inputs a model is judged on, planned from the definition alone and the same everywhere."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.spec import Dim, ModelDef, Tensor

Array = NDArray[np.generic]

# What values look like. Each is a scale of its own: noise is compared with noise of the same scale only.
SCALES = ("normal", "wide", "near-zero", "sparse")
LARGEST = 10


@dataclass(frozen=True)
class Case:
    """One set of named inputs.

    Attributes:
        name: ``normal-T63``, ``sequence``, ``sample-noisy``.
        kind: ``generated``, ``sequence`` or ``sample``.
        scale: how its values are distributed, one of ``SCALES`` or ``sample``.
        sizes: the size of every dynamic dim.
        steps: how many steps a model with state takes on its own fed-back state; 1 for a single call.
    """

    name: str
    kind: str
    scale: str
    sizes: Mapping[str, int]
    steps: int = 1


def plan(definition: ModelDef) -> list[Case]:
    """At most ten cases, pairwise over sizes and values; exactly one has every dim at its maximum.

    Two of them have the same sizes and different values, so that an output which nothing moves is noticed.
    """
    opt = definition.opt_sizes()
    cases = [_generated("normal", opt)]
    cases += [_generated("normal", sizes) for sizes in _other_sizes(definition.dims)]
    smallest = {dim.name: dim.min for dim in definition.dims}
    cases += [_generated(scale, opt) for scale in SCALES[1:]]
    if smallest != opt:
        cases.append(_generated("wide", smallest))
    unique = list({case.name: case for case in cases}.values())
    if definition.stream is None:
        return unique[:LARGEST]
    # Whatever else there is no room for, a state is judged in use.
    return [*unique[: LARGEST - 1], Case("sequence", "sequence", "normal", opt, definition.stream.steps)]


def _generated(scale: str, sizes: Mapping[str, int]) -> Case:
    label = "".join(f"-{name}{size}" for name, size in sizes.items())
    return Case(f"{scale}{label}", "generated", scale, dict(sizes))


def _other_sizes(dims: Sequence[Dim]) -> Iterator[dict[str, int]]:
    """All-min, all-max, and one odd interior size of every dim beside the others' opt."""
    opt = {dim.name: dim.opt for dim in dims}
    if any(not dim.fixed for dim in dims):
        yield {dim.name: dim.min for dim in dims}
        yield {dim.name: dim.max for dim in dims}
    for dim in dims:
        size = odd_interior(dim)
        if size is not None:
            yield opt | {dim.name: size}


def odd_interior(dim: Dim) -> int | None:
    """A size strictly between opt and max (else min and opt), near their geometric mean, odd where steps allow."""
    for low, high in ((dim.opt, dim.max), (dim.min, dim.opt)):
        inside = [size for size in range(dim.min, dim.max + 1, dim.step) if low < size < high]
        if inside:
            middle = (low * high) ** 0.5
            odd = [size for size in inside if size % 2] or inside
            return min(odd, key=lambda size: abs(size - middle))
    return None


def guarding(cases: Sequence[Mapping[str, Any]], definition: ModelDef) -> list[Mapping[str, Any]]:
    """Small cases, different in values and in the size of every dim, that every simplify pass must survive.

    Two of sparse and wide values, because they show what normal ones average away; one more for each dim that has one
    size in both, as a batch of 1 that may grow.
    """
    single = {case["name"]: case for case in cases if case["steps"] == 1}
    opt = "".join(f"-{dim.name}{dim.opt}" for dim in definition.dims)
    least = "".join(f"-{dim.name}{dim.min}" for dim in definition.dims)
    wide = f"wide{least}" if f"wide{least}" in single else f"wide{opt}"  # with many dims there was no room for it
    chosen = [single[name] for name in (f"sparse{opt}", wide) if name in single] or list(single.values())[:2]
    for dim in definition.dims:
        seen = {case["sizes"].get(dim.name) for case in chosen}
        others = [case for case in single.values() if case["sizes"].get(dim.name, dim.opt) not in seen]
        if len(seen) == 1 and others:
            chosen.append(min(others, key=lambda case: math.prod(case["sizes"].values())))
    return chosen


def generated_inputs(definition: ModelDef, case: Case, draw: int = 0) -> dict[str, Array]:
    """The inputs of a generated case or sequence, by tensor name.

    A sequence gives the streamed input all its steps along the stream's axis, and states that start at zero. How often
    a part repeats stands beside them as a whole number. Draw 0 is the case itself; others are more of its kind, for
    the yardstick.
    """
    stream, states = definition.stream, {state.input for state in definition.state}
    inputs: dict[str, Array] = {}
    for tensor in definition.inputs:
        shape = tensor.sized(case.sizes)
        if case.kind == "sequence":
            if stream is not None and tensor.name == stream.input:
                shape = (*shape[: stream.axis], shape[stream.axis] * case.steps, *shape[stream.axis + 1 :])
            elif tensor.name in states:
                inputs[tensor.name] = np.zeros(shape, tensor.dtype)
                continue
        inputs[tensor.name] = values(tensor, shape, case, draw)
    return inputs | {name: np.array(case.sizes[name], np.int64) for name in definition.repeats}


def nearby(inputs: Mapping[str, Array], case: Case, draw: int) -> dict[str, Array]:
    """A real input once more, every number of it changed by about a thousandth: other roundings of the same thing."""
    rng = np.random.default_rng(int(hashlib.sha256(f"{case.name}/nearby/{draw}".encode()).hexdigest()[:16], 16))

    def moved(value: Array) -> Array:
        if not np.issubdtype(value.dtype, np.floating):
            return value
        change = 1 + 1e-3 * rng.standard_normal(value.shape)
        return np.multiply(value, change, dtype=np.float64).astype(value.dtype)

    return {name: moved(value) for name, value in sorted(inputs.items())}


def values(tensor: Tensor, shape: tuple[int, ...], case: Case, draw: int = 0) -> Array:
    """Seeded values within the tensor's declared range, distributed as the case's scale says.

    ``normal`` fills the range with a bell, ``wide`` spreads magnitudes over five decades, ``near-zero`` is a
    thousandth of normal, ``sparse`` leaves one value in twenty.
    """
    name = f"{case.name}/{tensor.name}" + (f"/{draw}" if draw else "")
    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16))
    if np.dtype(tensor.dtype) == bool:
        return rng.random(shape) < (0.05 if case.scale == "sparse" else 0.5)
    if np.issubdtype(np.dtype(tensor.dtype), np.integer):
        return rng.integers(int(tensor.low), int(tensor.high), shape, endpoint=True).astype(tensor.dtype)
    centre, reach = (tensor.high + tensor.low) / 2, (tensor.high - tensor.low) / 2
    bell = np.clip(rng.standard_normal(shape) / 3, -1, 1)
    if case.scale == "wide":
        bell = np.sign(bell) * 10.0 ** rng.uniform(-5, 0, shape)
    elif case.scale == "near-zero":
        bell = bell * 1e-3
    elif case.scale == "sparse":
        bell = bell * (rng.random(shape) < 0.05)
    return (centre + reach * bell).astype(tensor.dtype)
