"""Calibration: the real or generated inputs that a quantiser takes its scales from. Never those that are judged.

What a scale was taken from cannot show that it is wrong: so nothing here may be a case of the bundle, and where one
folder is to give both, it is split once, by a recorded seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter import samples
from exporter.bundle import read_tensors, under, write_tensors
from exporter.errors import Refused
from exporter.host import files as readers
from exporter.manifest import Manifest
from exporter.parity import cases as planning
from exporter.parity.cases import Case
from exporter.spec import ModelDef

GENERATED = 8  # cases, where there are no real inputs
SAMPLE, SEQUENCE = "sample", "sequence"


@dataclass(frozen=True)
class Calibration:
    """Inputs to calibrate on.

    Attributes:
        source: where they come from, in words.
        files: prepared inputs, a safetensors file each.
        real: whether they are inputs as users have them, and not noise in the declared range.
    """

    source: str
    files: tuple[Path, ...]
    real: bool

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all of them, in order."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()


def split(found: Sequence[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Half of the samples to calibrate on, the rest to judge on: by name and seed, the same everywhere."""
    order = sorted(found, key=lambda path: hashlib.sha256(f"{seed}/{path.name}".encode()).hexdigest())
    half = len(order) // 2
    return sorted(order[:half]), sorted(order[half:])


def chosen(
    definition: ModelDef, calibration: Path | None, judged: Path | None, seed: int
) -> tuple[str, list[Path], list[Path]]:
    """Which of the user's files calibrate and which are judged: ``(source, calibration, samples)``.

    Raises:
        Refused: ``bad-calibration`` where one file is to be both; ``missing-file``.
    """
    own = samples.find(calibration, definition) if calibration else []
    real = samples.find(judged, definition) if judged else []
    if calibration is None:
        return "", [], real
    if judged is None or calibration.resolve() != judged.resolve():
        return f"{len(own)} of {calibration.name}", own, real
    first, rest = split(own, seed)
    if not first:
        raise _refused(
            f"{calibration.name} holds {len(own)} sample, to calibrate on and to judge on",
            "a scale that is judged on what it was taken from shows nothing",
            "give at least two, or other ones to --calibration",
        )
    source = f"{len(first)} of the {len(own)} in {calibration.name}, drawn with seed {seed}; the rest is judged"
    return source, first, rest


def prepared(definition: ModelDef, source: str, found: Sequence[Path], folder: Path) -> Calibration:
    """The calibration inputs as files: the user's, else the definition's own, else generated ones.

    Raises:
        Refused: ``bad-sample`` for what does not fit the model; ``bad-calibration`` where an input never changes.
    """
    folder.mkdir(parents=True)
    if found:
        given = [samples.fitting(definition, readers.read(path), path) for path in found]
        tensors = [(path.stem, sample.inputs) for path, sample in zip(found, given, strict=True)]
    elif definition.calibration is not None:
        tensors = [
            (sample.name, samples.fitting(definition, sample.values, Path(f"{definition.name}/{sample.name}")).inputs)
            for sample in definition.calibration()
        ]
        source = f"{len(tensors)} of the definition's own"
    else:
        tensors = []
    real = bool(tensors)
    if not real:
        tensors = [(case.name, planning.generated_inputs(definition, case)) for case in _generated(definition)]
        source = f"{len(tensors)} generated: no real input was given, and scales of noise fit noise"
    made = []
    for index, (name, inputs) in enumerate(tensors):
        path = folder / f"{index:03}-{samples.slug(name)}.safetensors"
        write_tensors(path, {f"input/{key}": np.asarray(value) for key, value in inputs.items()})
        made.append(path)
    _refuse_constant(definition, [inputs for _, inputs in tensors])
    return Calibration(source, tuple(made), real)


def _generated(definition: ModelDef) -> list[Case]:
    steps = definition.stream.steps if definition.stream else 1
    kind = "sequence" if definition.stream else "generated"
    return [Case(f"calibration-{i}", kind, "normal", definition.opt_sizes(), steps) for i in range(GENERATED)]


def _refuse_constant(definition: ModelDef, given: Sequence[Mapping[str, Any]]) -> None:
    """An input that holds one value throughout gives a scale that fits that value."""
    states = {state.input for state in definition.state}
    for tensor in definition.inputs:
        values = [np.asarray(inputs[tensor.name]) for inputs in given if tensor.name in inputs]
        values = [value for value in values if value.size and np.issubdtype(value.dtype, np.floating)]
        if tensor.name in states or not values:
            continue
        # A single number per input spreads over the inputs, if at all.
        single = all(value.size == 1 for value in values)
        spread = np.ptp(np.concatenate([v.ravel() for v in values])) if single else max(np.ptp(v) for v in values)
        if spread == 0:
            seen = ", ".join(f"{x:g}" for x in sorted({float(value.flat[0]) for value in values})[:4])
            raise _refused(
                f"the input {tensor.name} is {seen} throughout",
                "scales are taken from how values spread; there is none",
                "give real inputs to --calibration",
            )


def refuse_held(manifest: Manifest, path_of: Callable[[str], Path], cases: Iterable[tuple[str, Path]]) -> None:
    """Refuses to judge a bundle's targets on what their scales were taken from.

    Raises:
        Refused: ``bad-calibration`` naming both.
    """
    judged = list(cases)
    for info in manifest.targets.values():
        if info.calibration is not None:
            files = tuple(path_of(name) for name in info.calibration.files)
            refuse_judged(Calibration(info.calibration.source, files, info.calibration.real), judged)


def refuse_judged(calibration: Calibration, cases: Iterable[tuple[str, Path]]) -> None:
    """Refuses to calibrate on an input that is a case.

    Raises:
        Refused: ``bad-calibration`` naming both.
    """
    judged = {_digest(path): name for name, path in cases}
    for path in calibration.files:
        case = judged.get(_digest(path))
        if case is not None:
            raise _refused(
                f"{path.stem} is the case {case} as well",
                "a scale that is judged on what it was taken from shows nothing",
                "give other inputs to --calibration, or one folder to both options, and it is split",
            )


def _digest(path: Path) -> str:
    inputs = under(read_tensors(path), "input/")
    digest = hashlib.sha256()
    for name in sorted(inputs):
        digest.update(name.encode() + np.ascontiguousarray(inputs[name]).tobytes())
    return digest.hexdigest()


def _refused(what: str, why: str, remedy: str) -> Refused:
    return Refused("bad-calibration", what, where="--calibration", why=why, next=remedy)
