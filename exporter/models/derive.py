"""A definition of what has none: names, shapes and types of a module's tensors, seen by running it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter.errors import ExporterError, Refused
from exporter.host import files
from exporter.models import tables
from exporter.models.call import Call, by_name, example_of, in_a_row, named_outputs, shown
from exporter.models.given import EXAMPLE, TYPES, given_dims, given_inputs, indexing, refuse_unsaid, unsaid
from exporter.models.place import Place
from exporter.parity.cases import Case, generated_inputs
from exporter.spec import TRUTH, UNTOLD, Dim, ModelDef, Sample, Tensor

OWN = "own"
OURS = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class Asked:
    """What is said of the inputs: ``--input``, ``--dim``, ``--samples``; ``known``, as a bundle holds them."""

    inputs: Sequence[str] = ()
    dims: Sequence[str] = ()
    samples: str | None = None
    known: Sequence[str] = ()


def of_module(
    place: Place, build: Callable[[], nn.Module], example: Any, asked: Asked, options: Mapping[str, Any]
) -> ModelDef:
    """The definition of a user's module.

    Args:
        place: where it is from.
        build: makes it, with its weights.
        example: what its factory gave beside it: a tensor, a tuple of arguments or a mapping; or None.
        asked: what the user said of the inputs.
        options: what the factory was called with.

    Raises:
        Refused: ``no-inputs`` where nothing says what it takes; ``bad-input``, ``bad-dim``.
        Refused: ``example-failed`` where it does not run on that.
    """
    module = build().eval()
    _refuse_lower(module, place)
    inputs, call, real = _inputs(place, module, example, asked)
    dims = given_dims(asked.dims, inputs)
    definition = ModelDef(
        place.label, OWN, lambda: in_a_row(build(), call), inputs, (), place.shown, "the user's own", dims=dims,
        samples=(lambda: [Sample("example", real)]) if real else None, options=dict(options), weighted=True,
    )  # fmt: skip
    return with_outputs(definition, in_a_row(module, call), place)


def with_outputs(definition: ModelDef, module: nn.Module, place: Place, names: Sequence[str] = ()) -> ModelDef:
    """The definition with the outputs that its module gives, by running it at several sizes of every dim.

    Args:
        definition: all that is known beside.
        module: called with tensors in a row.
        place: where it is from, for errors.
        names: what the outputs are called, where they have names already.
    """
    opt = definition.opt_sizes()
    given = _seen(definition, module, opt, place)
    after = {dim.name: _another(dim) for dim in definition.dims if not dim.fixed}
    varied = {name: _shapes(definition, module, opt | {name: size}, place) for name, size in after.items()}
    taken, outputs = {tensor.name for tensor in definition.inputs}, list[Tensor]()
    for index, (seen, value) in enumerate(given):
        name = names[index] if names else seen
        shape = tuple(
            _entry(size, {dim: _at(found, index, axis) for dim, found in varied.items()}, opt, after)
            for axis, size in enumerate(value.shape)
        )
        _refuse_complex(definition, name, value, place)
        free = name if name not in taken else f"{name}.out"
        free = free if free not in taken else f"{free}.{index}"
        taken.add(free)
        outputs.append(Tensor(free, shape, "", str(value.dtype).removeprefix("torch.")))
    return replace(definition, outputs=tuple(outputs))


def refuse_not_running(definition: ModelDef, module: nn.Module, place: Place) -> None:
    """Refuses a definition whose module does not run on what it says; several graphs are run where they are driven.

    Raises:
        Refused: ``example-failed``, with the line of the user's own code.
    """
    if not definition.parts:
        _seen(definition, module, definition.opt_sizes(), place)


def _refuse_complex(definition: ModelDef, name: str, value: torch.Tensor, place: Place) -> None:
    if value.is_complex():
        raise Refused(
            "unsupported-dtype",
            f"its output {name} is {str(value.dtype).removeprefix('torch.')}",
            where=f"MODEL {place.shown}, model {definition.name}",
            why="graphs for devices have real numbers, whole numbers and truth values",
            next="return torch.view_as_real of it",
        )


def _entry(size: int, other: Mapping[str, int], before: Mapping[str, int], after: Mapping[str, int]) -> int | str:
    """An axis in the words of a shape: a number where no dim moves it; a dim, a multiple or a part of one; else untold.

    Args:
        size: it at the opt sizes.
        other: it with one dim changed, by dim; 0 where that is not known.
        before: the opt size of every dim.
        after: what each was changed to.
    """
    moves = [dim for dim, found in other.items() if found != size]
    if not moves:
        return size
    dim = moves[0]
    if len(moves) > 1 or not size or size * after[dim] != other[dim] * before[dim]:
        return UNTOLD
    if size % before[dim] == 0:
        return dim if size == before[dim] else f"{dim}*{size // before[dim]}"
    return f"{dim}/{before[dim] // size}" if before[dim] % size == 0 else UNTOLD


def _at(shapes: Sequence[Sequence[int]], output: int, axis: int) -> int:
    return shapes[output][axis] if output < len(shapes) and axis < len(shapes[output]) else 0


def _another(dim: Dim) -> int:
    return dim.max if dim.max != dim.opt else dim.min


def _shapes(definition: ModelDef, module: nn.Module, sizes: Mapping[str, int], place: Place) -> list[tuple[int, ...]]:
    """The outputs' shapes at other sizes; none where it does not run there, which the tracer can say more of."""
    try:
        return [tuple(value.shape) for _, value in _seen(definition, module, sizes, place)]
    except Refused:
        return []


def _seen(
    definition: ModelDef, module: nn.Module, sizes: Mapping[str, int], place: Place
) -> list[tuple[str, torch.Tensor]]:
    """Every output by its name, of one run."""
    values = generated_inputs(definition, Case("example", "generated", "normal", dict(sizes)))
    real = (
        {name: value for sample in definition.samples() for name, value in sample.values.items()}
        if (definition.samples is not None and sizes == definition.opt_sizes())
        else {}
    )
    tensors = [torch.from_numpy(np.ascontiguousarray({**values, **real}[t.name])) for t in definition.inputs]
    try:
        with torch.no_grad():
            found = named_outputs(module, tensors)
    except ExporterError:
        raise
    except Exception as error:
        raise _does_not_run(definition, error, place) from error
    if not found:
        raise Refused(
            "wrong-outputs",
            "forward gives no tensor",
            where=f"model {definition.name}",
            why="an artifact is judged by the tensors that it gives",
            next="return a tensor, or tensors in a tuple, a mapping or a dataclass",
        )
    return found


def _does_not_run(definition: ModelDef, error: Exception, place: Place) -> Refused:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(OURS)]
    last = own[-1] if own else None
    line = f", {Path(last.filename).name}:{last.lineno}: {last.line}" if last else ""
    shapes = ", ".join(f"{t.name} {t.sized(definition.opt_sizes())} {t.dtype}" for t in definition.inputs)
    first = next((text for text in str(error).splitlines() if text.strip()), "")
    return Refused(
        "example-failed",
        f"the model does not run on {shapes}: {type(error).__name__}: {first}",
        where=f"MODEL {place.shown}{line}",
        why="what eager PyTorch cannot run has nothing to be compared with",
        next=f"mend {'that line' if line else 'the model'}, or say what it takes, for example {EXAMPLE}",
    )


Inputs = tuple[tuple[Tensor, ...], Call, Mapping[str, Any]]


def _inputs(place: Place, module: nn.Module, example: Any, asked: Asked) -> Inputs:
    """The inputs, how they are handed on, and the real values that are known of them."""
    if asked.inputs:
        return _as_said(module, given_inputs(asked.inputs), asked)
    if example is None:
        example = example_of(module)
    if example is not None:
        return _as_shown(module, example)
    if asked.known:
        return _as_said(module, given_inputs(asked.known), asked)
    if asked.samples is not None:
        values = {k: v for k, v in files.read(_first(Path(asked.samples))).items() if not k.startswith(TRUTH)}
        return _as_shown(module, {name: torch.from_numpy(np.array(value)) for name, value in values.items()})
    raise Refused(
        "no-inputs",
        f"nothing says what {place.shown} takes",
        where=f"{type(module).__name__}.forward",
        why="a graph is made for inputs of known names, shapes and types",
        next=f"{EXAMPLE}, --samples FILE.npz, or let the function return (module, example inputs)",
    )


def _first(path: Path) -> Path:
    return min(p for p in path.iterdir() if p.suffix in files.READERS) if path.is_dir() else path


def _as_said(module: nn.Module, inputs: tuple[Tensor, ...], asked: Asked) -> Inputs:
    dims = {dim.name: dim.opt for dim in given_dims(asked.dims, inputs)}
    zeros = {t.name: torch.zeros(t.sized(dims), dtype=getattr(torch, t.dtype)) for t in inputs}
    call = by_name(module, zeros)
    entries = tables.of_module(module, zeros, call.arguments(call.tensors)) if any(map(unsaid, inputs)) else {}
    by = {t.name: indexing(t, entries.get(t.name, 0)) if unsaid(t) else t for t in inputs}
    refuse_unsaid(tuple(by.values()))
    return tuple(by[name] for name in call.names), call, {}


def _as_shown(module: nn.Module, example: Any) -> Inputs:
    """What an example shows: its values are real, and integers lie in the range that it has."""
    call = shown(module, example)
    if not call.names:
        raise Refused(
            "no-inputs",
            "the example inputs hold no tensor",
            where=f"{type(module).__name__}.forward",
            why="a graph without an input gives one answer",
            next=EXAMPLE,
        )
    for name, tensor in zip(call.names, call.tensors, strict=True):
        _refuse_type(name, tensor, type(module).__name__)
    real = {name: tensor.numpy() for name, tensor in zip(call.names, call.tensors, strict=True)}
    return tuple(_tensor(name, value) for name, value in real.items()), call, real


def _refuse_lower(module: nn.Module, place: Place) -> None:
    """A model is judged in float32 and float64, and lowered here: weights that are it already say too little."""
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.element_size() < 4:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise Refused(
                "unsupported-dtype",
                f"its weight {name} is {kind}",
                where=f"MODEL {place.shown}, {type(module).__name__}",
                why="the reference runs in float64 and its yardstick in float32; a lower precision is made of those",
                next="return module.float(), and ask for --precision fp16 or bf16",
            )


def _refuse_type(name: str, tensor: torch.Tensor, module: str) -> None:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in TYPES.values():
        raise Refused(
            "unsupported-dtype",
            f"its input {name} is {kind}",
            where=f"{module}.forward",
            why=f"inputs are of the types {', '.join(TYPES.values())}",
            next="take both parts as real numbers" if tensor.is_complex() else "take float32, and convert it inside",
        )
    if not tensor.numel():
        raise Refused(
            "bad-input",
            f"its input {name} is empty: {tuple(tensor.shape)}",
            where=f"{module}.forward",
            why="nothing could be compared of an empty input",
            next="give an example with something in it",
        )
    if tensor.device.type != "cpu":
        raise Refused(
            "bad-input",
            f"its input {name} lies on the device {tensor.device}",
            where=f"{module}.forward",
            why="a model is looked at on the CPU, where its reference is computed",
            next="make the example inputs on the CPU",
        )


def _tensor(name: str, value: np.ndarray[Any, Any]) -> Tensor:
    low, high = -1.0, 1.0
    if value.dtype == bool:
        low, high = 0.0, 1.0
    elif value.size:
        low, high = float(value.min()), float(value.max())
        if not np.issubdtype(value.dtype, np.integer):
            reach = max(abs(low), abs(high)) or 1.0
            low, high = (-reach if low < 0 else 0.0), reach
    return Tensor(name, tuple(value.shape), "", str(value.dtype), low, high)
