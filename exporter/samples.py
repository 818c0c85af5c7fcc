"""The user's own samples as cases: read, prepared by the definition's host steps, checked against its dims."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exporter import host
from exporter.bundle import read_tensors, write_tensors
from exporter.errors import Refused, nearest
from exporter.host import files
from exporter.parity.cases import Case
from exporter.spec import Dim, HostStep, State, Stream, Tensor

Array = NDArray[np.generic]


class Interface(Protocol):
    """What a definition and a bundle's manifest both say of a model."""

    @property
    def inputs(self) -> tuple[Tensor, ...]: ...
    @property
    def dims(self) -> tuple[Dim, ...]: ...
    @property
    def state(self) -> tuple[State, ...]: ...
    @property
    def stream(self) -> Stream | None: ...
    @property
    def before(self) -> tuple[HostStep, ...]: ...


def find(path: Path) -> list[Path]:
    """The sample files that ``--samples PATH`` means: the file itself, or those of a folder.

    Raises:
        Refused: ``missing-file``.
    """
    found = sorted(p for p in path.iterdir() if p.suffix in files.READERS) if path.is_dir() else [path]
    if not found or not found[0].exists():
        raise Refused(
            "missing-file",
            f"there is no sample at {path}",
            why="--samples takes a .wav, .npz or .safetensors file, or a folder of them",
            next=f"ls {path}",
        )
    return found


def prepare(interface: Interface, path: Path) -> dict[str, Array]:
    """The graph's inputs from a file; states that the file does not give start as zeros.

    Raises:
        Refused: ``missing-file``, ``bad-sample`` when an input is missing or has a wrong type or shape.
    """
    values = files.read(path)
    if "audio" in values:
        values = host.apply(interface.before, values)
    inputs: dict[str, Array] = {}
    states = {state.input for state in interface.state}
    _refuse_unknown(interface, values, path)
    for tensor in interface.inputs:
        if tensor.name in values:
            inputs[tensor.name] = values[tensor.name]
        elif tensor.name in states:
            inputs[tensor.name] = np.zeros(tensor.sized({d.name: d.opt for d in interface.dims}), tensor.dtype)
    _sizes(interface, inputs, path)
    return inputs


def _refuse_unknown(interface: Interface, values: Mapping[str, Array], path: Path) -> None:
    """A misspelt input must not silently be taken for an absent one, whose state would start as zeros."""
    known = [tensor.name for tensor in interface.inputs]
    unknown = [name for name in values if name not in (*known, "audio", "sample_rate")]
    if unknown:
        raise Refused(
            "bad-sample",
            f"{path.name} holds {unknown[0]!r}, which is no input{nearest(unknown[0], known)}",
            where=f"file {path}",
            why=f"the inputs are {', '.join(known)}",
            next="give the tensors of a sample the names of the inputs",
        )


def prepared_files(interface: Interface, path: Path, folder: Path) -> list[str]:
    """Prepares every sample under ``path`` and writes each to a file of its own in ``folder``."""
    written = []
    for found in find(path):
        target = folder / f"{slug(found.stem)}.safetensors"
        write_tensors(target, prepare(interface, found))
        written.append(str(target))
    return written


def case_of(interface: Interface, path: Path) -> Case:
    """The case that a file of prepared inputs is."""
    inputs = read_tensors(path)
    sizes, steps = _sizes(interface, inputs, path)
    kind = "sequence" if steps > 1 else "sample"
    return Case(f"sample-{slug(path.stem)}", kind, "sample", sizes, steps)


def slug(text: str) -> str:
    """A name that is safe as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40] or "unnamed"


def _sizes(interface: Interface, inputs: Mapping[str, Array], path: Path) -> tuple[dict[str, int], int]:
    """The size of every dim, and the steps along the stream's axis."""
    sizes: dict[str, int] = {}
    steps, dims = 1, {dim.name: dim for dim in interface.dims}
    for tensor in interface.inputs:
        given = inputs.get(tensor.name)
        if given is None:
            raise _unfit(path, f"input {tensor.name} is missing", tensor)
        streamed = interface.stream is not None and tensor.name == interface.stream.input
        if given.dtype != np.dtype(tensor.dtype) or given.ndim != len(tensor.shape):
            raise _unfit(path, f"input {tensor.name} is {given.dtype} {given.shape}", tensor)
        for axis, (size, wanted) in enumerate(zip(given.shape, tensor.shape, strict=True)):
            if streamed and interface.stream is not None and axis == interface.stream.axis:
                steps = size
            elif isinstance(wanted, str):
                if sizes.setdefault(wanted, size) != size or not dims[wanted].allows(size):
                    raise _unfit(path, f"dim {wanted} would be {size}, and {dims[wanted]} is allowed", tensor)
            elif size != wanted:
                raise _unfit(path, f"input {tensor.name} is {given.shape}", tensor)
        if not np.isfinite(given).all():
            raise _unfit(path, f"input {tensor.name} holds NaN or infinite values", tensor)
    return sizes, steps


def _unfit(path: Path, what: str, tensor: Tensor) -> Refused:
    dims: Sequence[str] = [d for d in tensor.shape if isinstance(d, str)]
    return Refused(
        "bad-sample",
        f"{path.name}: {what}",
        where=f"file {path}, input {tensor.name} ({tensor.dtype} {tensor.shape})",
        why="a sample is judged as it is: it must have the model's names, types and sizes",
        next=f"cut the sample, or widen the range: --dim {dims[0]}=MIN:OPT:MAX"
        if dims
        else "give the tensors named above",
    )
