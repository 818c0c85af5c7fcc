"""The user's own samples as cases: read, prepared by the definition's host steps, checked against its dims."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exporter import host
from exporter.bundle import read_tensors, write_tensors
from exporter.errors import Refused, nearest
from exporter.host import files
from exporter.host.metrics import METRICS
from exporter.host.values import names_in
from exporter.parity.cases import Case
from exporter.spec import TRUTH, Dim, HostStep, ModelDef, State, Stream, Tensor, factors_of

Array = NDArray[np.generic]

# Options of a host step that hold names of values.
NAMING = ("of", "from", "to", "like")

# Names under which readers give what host steps start from.
RAW = ("audio", "sample_rate", "image")


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
    @property
    def repeats(self) -> tuple[str, ...]: ...


def find(path: Path, interface: Interface) -> list[Path]:
    """The samples that ``--samples PATH`` means: the file itself, or those of a folder.

    A folder with a picture for every input is one sample.

    Raises:
        Refused: ``missing-file``.
    """
    several = path.is_dir() and not files.is_one_input(path, [tensor.name for tensor in interface.inputs])
    found = sorted(p for p in path.iterdir() if _is_sample(p, interface)) if several else [path]
    if not found or not found[0].exists():
        raise Refused(
            "missing-file",
            f"there is no sample at {path}",
            why=f"a sample is a file that ends in {', '.join(files.READERS)}, or a folder has some of them",
            next=f"ls {path}",
        )
    return found


@dataclass(frozen=True)
class Prepared:
    """A real input, ready for the graph.

    Attributes:
        inputs: the graph's inputs by name, and how often each part with a chosen count repeats.
        context: what the steps before the graph leave for those after it, such as the size before padding.
        truth: what the steps after the graph should give, where it is known.
    """

    inputs: Mapping[str, Array]
    context: Mapping[str, Array] = field(default_factory=dict)
    truth: Mapping[str, Array] = field(default_factory=dict)

    def tensors(self) -> dict[str, Array]:
        """All of it under prefixed names, as a case's file holds it."""
        groups = {"input/": self.inputs, "context/": self.context, TRUTH: self.truth}
        return {prefix + name: value for prefix, group in groups.items() for name, value in group.items()}


def prepare(interface: Interface, values: Mapping[str, Array], where: Path) -> Prepared:
    """The graph's inputs from named arrays, through the host steps unless they are the graph's inputs already.

    Args:
        interface: the definition or the manifest.
        values: what a file holds, or a definition's own sample.
        where: the file, for errors.

    Raises:
        Refused: ``bad-sample`` for a name that is no input, or whatever a host step refuses.
    """
    truth = {name.removeprefix(TRUTH): value for name, value in values.items() if name.startswith(TRUTH)}
    _refuse_unknown_truth(truth, where)
    given = {name: value for name, value in values.items() if not name.startswith(TRUTH)}
    _refuse_unknown(interface, given, where)
    if not _complete(interface, given, where):
        given = _through_host(interface, given)
    opt = {dim.name: dim.opt for dim in interface.dims}
    inputs = {tensor.name: given[tensor.name] for tensor in interface.inputs if tensor.name in given}
    for name in interface.repeats:
        inputs[name] = np.array(given.get(name, opt[name]), np.int64)
    states = {state.input for state in interface.state}
    for tensor in interface.inputs:
        if tensor.name in states and tensor.name not in inputs:
            inputs[tensor.name] = np.zeros(tensor.sized(opt), tensor.dtype)
    return Prepared(inputs, host.records(given), truth)


def _through_host(interface: Interface, given: Mapping[str, Array]) -> dict[str, Array]:
    """The values after the steps before the graph.

    Where every input is there but none of what the steps start from, what is wrong is an input's form: that is said
    where sizes are checked.
    """
    states = {state.input for state in interface.state}
    try:
        return host.apply(interface.before, dict(given), interface.dims)
    except Refused:
        if all(tensor.name in given for tensor in interface.inputs if tensor.name not in states):
            return dict(given)
        raise


def _complete(interface: Interface, values: Mapping[str, Array], where: Path) -> bool:
    """Whether the values are the graph's inputs as they stand."""
    states = {state.input for state in interface.state}
    opt = {dim.name: dim.opt for dim in interface.dims}
    zeros = {t.name: np.zeros(t.sized(opt), t.dtype) for t in interface.inputs if t.name in states}
    try:
        sizes_of(interface, {**zeros, **values}, where)
    except Refused:
        return False
    return True


def _refuse_unknown(interface: Interface, values: Mapping[str, Array], where: Path) -> None:
    """A misspelt input must not silently be taken for an absent one, whose state would start as zeros."""
    known = [tensor.name for tensor in interface.inputs]
    taken = {*known, *RAW, *interface.repeats, *_named_in(interface.before)}
    unknown = [name for name in values if name not in taken]
    if unknown:
        raise Refused(
            "bad-sample",
            f"{where.name} holds {unknown[0]!r}, which is no input{nearest(unknown[0], known)}",
            where=f"file {where}",
            why=f"the inputs are {', '.join(known)}",
            next="give the tensors of a sample the names of the inputs",
        )


def _named_in(steps: Sequence[HostStep]) -> set[str]:
    """Names of values that host steps read or give."""
    return {name for step in steps for key in NAMING if key in step.options for name in names_in(step.options[key])}


def _refuse_unknown_truth(truth: Mapping[str, Array], where: Path) -> None:
    """A misspelt truth must not silently be taken for none: the reference would stand in its place."""
    known = sorted({metric.value for metric in METRICS.values()})
    unknown = [name for name in truth if name not in known]
    if unknown:
        raise Refused(
            "bad-sample",
            f"{where.name} holds {TRUTH}{unknown[0]}, which no metric reads{nearest(unknown[0], known)}",
            where=f"file {where}",
            why=f"a truth is one of {', '.join(known)}: what task metrics compare",
            next=f"rename it, for example {TRUTH}{known[0]}",
        )


def prepared_files(interface: Interface, found: Sequence[Path], folder: Path) -> list[str]:
    """Prepares every sample that :func:`find` found and writes each to a file of its own in ``folder``."""
    return [_written(fitting(interface, files.read(path), path), path.stem, folder) for path in found]


def fitting(interface: Interface, values: Mapping[str, Array], where: Path) -> Prepared:
    """What :func:`prepare` makes of a sample, which must fit the model as it is.

    Raises:
        Refused: ``bad-sample``, of the file that the values are from.
    """
    prepared = prepare(interface, values, where)
    sizes_of(interface, prepared.inputs, where)
    return prepared


def own_files(definition: ModelDef, folder: Path) -> tuple[list[str], list[str]]:
    """Prepares the definition's own samples, as far as they are at hand here and fit its dims as they are now.

    Returns:
        The files, and a note for whatever was left out.
    """
    if definition.samples is None:
        return [], []
    written, notes = list[str](), list[str]()
    for sample in definition.samples():
        values = {**sample.values, **{TRUTH + name: value for name, value in sample.truth.items()}}
        place = Path(f"{definition.name}/{sample.name}")
        prepared = prepare(definition, values, place)
        try:
            sizes_of(definition, prepared.inputs, place)
        except Refused as error:
            notes.append(f"real input {sample.name} left out: {error.what}")
            continue
        written.append(_written(prepared, sample.name, folder))
    if not written and not notes:
        notes.append("none of the definition's real inputs is at hand here; --samples PATH judges on yours")
    return written, notes


def _written(prepared: Prepared, name: str, folder: Path) -> str:
    target = folder / f"{slug(name)}.safetensors"
    write_tensors(target, {name: np.asarray(value) for name, value in prepared.tensors().items()})
    return str(target)


def case_of(interface: Interface, path: Path) -> Case:
    """The case that a file of prepared inputs is."""
    tensors = read_tensors(path)
    inputs = {name.removeprefix("input/"): value for name, value in tensors.items() if name.startswith("input/")}
    sizes, steps = sizes_of(interface, inputs, path)
    kind = "sequence" if steps > 1 else "sample"
    return Case(f"sample-{slug(path.stem)}", kind, "sample", sizes, steps)


def _is_sample(path: Path, interface: Interface) -> bool:
    return path.suffix.lower() in files.READERS or files.is_one_input(
        path, [tensor.name for tensor in interface.inputs]
    )


def slug(text: str) -> str:
    """A name that is safe as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40] or "unnamed"


def named(text: str) -> str:
    """The same, and another one for every text: what the slug does not say, digits of the text's digest do."""
    made = slug(text)
    return made if made == text else f"{made}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def sizes_of(interface: Interface, inputs: Mapping[str, Array], path: Path) -> tuple[dict[str, int], int]:
    """The size of every dim, and the steps along the stream's axis."""
    sizes: dict[str, int] = {}
    steps, dims = 1, {dim.name: dim for dim in interface.dims}
    for tensor in interface.inputs:
        given = inputs.get(tensor.name)
        if given is None:
            raise _unfit(path, f"input {tensor.name} is missing", tensor, f"give {tensor.name} too")
        streamed = interface.stream is not None and tensor.name == interface.stream.input
        if given.dtype != np.dtype(tensor.dtype) or given.ndim != len(tensor.shape):
            what = f"input {tensor.name} is {given.dtype} {given.shape}"
            raise _unfit(path, what, tensor, f"save it as {tensor.dtype} with {len(tensor.shape)} axes")
        for axis, (size, wanted) in enumerate(zip(given.shape, tensor.shape, strict=True)):
            if streamed and interface.stream is not None and axis == interface.stream.axis:
                assert isinstance(wanted, int)  # what one call takes is part of the graph
                steps = size // wanted
                if steps < 1 or size % wanted:
                    raise _unfit(path, f"input {tensor.name} is {given.shape}, no whole number of calls", tensor)
            elif isinstance(wanted, str):
                name, factor, divisor = factors_of(wanted)
                whole = size * divisor // factor
                if sizes.setdefault(name, whole) != whole or not dims[name].allows(whole):
                    raise _unfit(path, f"dim {name} would be {whole}, and {dims[name]} is allowed", tensor)
            elif size != wanted:
                what = f"input {tensor.name} is {given.shape}"
                raise _unfit(path, what, tensor, f"axis {axis} has to be {wanted}: it is fixed in this model")
        if not np.isfinite(given).all():
            raise _unfit(path, f"input {tensor.name} holds NaN or infinite values", tensor, "mend it, or leave it out")
    for name in interface.repeats:
        sizes[name] = int(inputs.get(name, dims[name].opt))
        if not dims[name].allows(sizes[name]):
            raise _unfit(path, f"{name} would be {sizes[name]}, and {dims[name]} is allowed", interface.inputs[0])
    return sizes, steps


def _unfit(path: Path, what: str, tensor: Tensor, next: str = "") -> Refused:
    dims = [factors_of(size)[0] for size in tensor.shape if isinstance(size, str)]
    return Refused(
        "bad-sample",
        f"{path.name}: {what}",
        where=f"file {path}, input {tensor.name} ({tensor.dtype} {tensor.shape})",
        why="a sample is judged as it is: it must have the model's names, types and sizes",
        next=next
        or (f"cut the sample, or widen the range: --dim {dims[0]}=MIN:OPT:MAX" if dims else "give such tensors"),
    )
