"""The reference: what the eager model computes in float64, and how far eager itself rounds away from it."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_leaves

from exporter import decisions, define, lowered_eager, samples
from exporter.bundle import read_tensors, under, write_tensors
from exporter.errors import NotProven
from exporter.isolate import Channel
from exporter.mutation import places
from exporter.parity import cases as planning
from exporter.parity.cases import Case
from exporter.parity.judge import Floor
from exporter.parity.ladder import RUNGS
from exporter.parity.measure import compare, l2, relative, step_errors
from exporter.spec import ModelDef
from exporter.stream import driven, joined

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]

# A yardstick rests on this many elements, or on this many draws.
ENOUGH_ELEMENTS, MOST_DRAWS = 1 << 14, 8


def write_cases(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: computes every case's reference and noise and writes one file per case.

    Args:
        request: ``build`` (see :func:`define.eager`), ``samples`` (files of prepared inputs), ``planned`` (whether
            the definition's own cases and samples are wanted) and ``folder``.
        channel: gets ``{"event": "progress", ...}`` per case, with an estimate of the whole before the second.

    Returns:
        ``{"cases": [...], "parameters", "weights", "reference": "float64" or "float32", "notes": [...]}``.

    Raises:
        NotProven: the module is random, or writes to its inputs or buffers.
    """
    build = request["build"]
    definition = define.definition(build)
    module, weights = define.weighted(definition, build["checkpoint"], build["seed"])
    before = _buffer_digest(module)
    double, precision, notes = _double(definition, module)
    planned: list[tuple[Case, Path | None]] = (
        [(case, None) for case in planning.plan(definition)] if request["planned"] else []
    )
    folder = Path(request["folder"])
    given, left_out = samples.own_files(definition, folder.parent) if request["planned"] else ([], [])
    given += request["samples"]  # the user's own, where two have one name
    real = {case.name: (case, Path(path)) for path in given for case in [samples.case_of(definition, Path(path))]}
    planned += real.values()
    planned.sort(key=lambda item: _volume(definition, item[0]))
    draws = _draws(definition, [case for case, _ in planned])
    run = _Runs(definition, module, double, precision)
    left, rate = sum(_volume(definition, case) for case, _ in planned), math.inf
    first_of_shape: dict[tuple[str, tuple[int, ...]], Array] = {}
    written = []
    for index, (case, path) in enumerate(planned):
        known = read_tensors(path) if path else {}
        inputs = under(known, "input/") if path else planning.generated_inputs(definition, case)
        usual = case.scale == "normal" and case.sizes == definition.opt_sizes() and case.steps == 1
        started = time.perf_counter()
        file = folder / f"{case.name}.safetensors"
        found = _case_tensors(run, definition, case, inputs, draws[case.name], first_of_shape)
        if index == 0 or usual:
            run.refuse_random(case, inputs, under(found, "reference/"))
        write_tensors(file, {**known, **found})
        written.append(case.__dict__ | {"file": str(file)})
        volume = _volume(definition, case)
        # The best rate so far: small cases are all overhead, and would promise hours.
        left, rate = left - volume, min(rate, (time.perf_counter() - started) / volume)
        channel.send(
            {
                "event": "progress",
                "what": f"reference {case.name}",
                "done": index + 1,
                "of": len(planned),
                "left_seconds": left * rate,
            }
        )
    run.end()
    if _buffer_digest(module) != before:
        given_first = planning.generated_inputs(definition, planning.plan(definition)[0])
        place, _ = _places(definition, module, given_first, torch.get_default_dtype())
        raise _mutated(definition, "a buffer of the module", "buffer-mutated", place)
    return {
        "cases": written,
        "parameters": sum(p.numel() for p in module.parameters()),
        "weights": weights.__dict__,
        "reference": precision,
        "notes": [*definition.notes, *notes, *left_out],
    }


def write_yardstick(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: how far eager in a lower precision is from the reference, over cases that have one already.

    Args:
        request: ``build`` (see :func:`define.eager`), ``precision``, ``cases`` (as :func:`write_cases` gave them) and
            ``file``, the path to write: ``noise/CASE/OUTPUT`` and ``drift/CASE/OUTPUT`` of every case.
        channel: gets a progress event per case.

    Returns:
        ``{"weights"}``, whose digest has to be that of the reference.
    """
    build, precision = request["build"], request["precision"]
    definition = define.definition(build)
    module, weights = define.weighted(definition, build["checkpoint"], build["seed"])
    rounded = lowered_eager.rounded_module(module, precision)
    double, kind, _ = _double(definition, module)
    if kind == "float64" and double is module:  # its own types are not asked for: the copy alone is rounded
        double = module.double()
    run = _Runs(definition, rounded, double, kind, partial(lowered_eager.rounding, precision))
    cases = [Case(**{field.name: case[field.name] for field in fields(Case)}) for case in request["cases"]]
    files = {case["name"]: Path(case["file"]) for case in request["cases"]}
    draws, tensors = _draws(definition, cases), dict[str, Array]()
    for index, case in enumerate(cases):
        held = read_tensors(files[case.name])
        noise, drift = run.floors(case, held, draws[case.name])
        for name, floor in noise.items():
            tensors[f"noise/{case.name}/{name}"] = np.array([floor.relative, floor.max_abs])
        tensors |= {f"drift/{case.name}/{name}": errors for name, errors in drift.items()}
        undecided = run.undecided(case, under(held, "input/"), under(held, "reference/"), RUNGS["low"].bound)
        tensors |= {f"undecided/{case.name}/{name}": mask for name, mask in undecided.items()}
        event = {"event": "progress", "what": f"{precision} {case.name}", "done": index + 1, "of": len(cases)}
        channel.send(event)
    write_tensors(Path(request["file"]), tensors)
    return {"weights": weights.__dict__}


def _volume(definition: ModelDef, case: Case) -> float:
    """How much work a case is, in elements: what the estimate of the whole is scaled by."""
    elements = sum(float(np.prod(t.sized(case.sizes))) for t in definition.inputs[:1])
    return elements * case.steps * math.prod(case.sizes[name] for name in definition.repeats)


def _case_tensors(
    run: _Runs,
    definition: ModelDef,
    case: Case,
    inputs: Arrays,
    draws: int,
    first_of_shape: dict[tuple[str, tuple[int, ...]], Array],
) -> dict[str, Array]:
    """``input/``, ``reference/`` and ``noise/`` tensors of one case.

    ``noise/NAME`` is ``[relative L2 of eager, its largest element error, relative movement]``; for a sequence
    ``drift/NAME`` is eager's relative error after each step; of whole numbers ``undecided/NAME`` says which hang on
    rounding alone. A real input has ``eager/`` too, for the task metrics.
    """
    y64, y32, noise = run.both(case, inputs)
    noise = run.joined_draws(case, inputs, noise, draws)
    tensors: dict[str, Array] = {f"input/{name}": value for name, value in inputs.items()}
    for tensor in definition.outputs:
        name, reference = tensor.name, y64[tensor.name]
        first = first_of_shape.setdefault((name, reference.shape), reference)
        tensors[f"reference/{name}"] = reference
        tensors[f"noise/{name}"] = np.array([noise[name].relative, noise[name].max_abs, _moved(reference, first)])
    undecided = run.undecided(case, inputs, y64, RUNGS["compiled"].bound)
    tensors |= {f"undecided/{name}": mask for name, mask in undecided.items()}
    if case.scale == "sample":
        tensors |= {f"eager/{tensor.name}": y32[tensor.name] for tensor in definition.outputs}
    tensors |= {f"drift/{name}": errors for name, errors in run.drift(case, y64, y32).items()}
    return tensors


def _draws(definition: ModelDef, cases: Sequence[Case]) -> dict[str, int]:
    """How many draws each case adds to the yardstick of its scale.

    The error of few elements is a matter of luck: one draw of 26 non-zero values was seen 7 times below the next. The
    yardstick is the largest error over a scale's cases, so that every one of them is a draw; where they are not
    enough, the case at the opt sizes is drawn again; of real inputs the first, from right beside it.
    """
    opt, draws = definition.opt_sizes(), {case.name: 1 for case in cases}
    for scale in (*planning.SCALES, "sample"):
        group = [case for case in cases if case.kind in ("generated", "sample") and case.scale == scale]
        if not group:
            continue
        elements = {c.name: min(math.prod(t.sized(c.sizes)) for t in definition.outputs) for c in group}
        again = next((case for case in group if case.sizes == opt), group[0])
        missing = ENOUGH_ELEMENTS - sum(elements.values())
        more = math.ceil(missing / max(elements[again.name], 1))
        draws[again.name] += min(max(more, 0), max(MOST_DRAWS - len(group), 0))
    return draws


def _moved(reference: Array, first: Array) -> float:
    if not np.issubdtype(reference.dtype, np.floating):
        return float(not np.array_equal(reference, first))
    now, then = reference.astype(np.float64), first.astype(np.float64)
    difference, size = l2(now - then), max(l2(now), l2(then))
    return 0.0 if size == 0.0 or not np.isfinite(difference) else difference / size


def _double(definition: ModelDef, module: nn.Module) -> tuple[nn.Module, str, list[str]]:
    """The module in float64, of large weights the module itself, to be turned (:class:`define.Turning`); where that
    cannot run, the float32 module itself and a note that says so."""
    double = module if define.is_large(module) else copy.deepcopy(module).double()
    smallest = Case("probe", "generated", "normal", {d.name: d.min for d in definition.dims})
    run = _Runs(definition, module, double, "float64")
    try:
        run.reference(smallest, planning.generated_inputs(definition, smallest))
    except (RuntimeError, TypeError, NotImplementedError) as error:
        note = (
            f"float64 does not run ({str(error).splitlines()[0]}): the reference is float32, its own noise is unknown"
        )
        return module, "float32", [note]
    finally:
        run.end()
    return double, "float64", []


class _Runs:
    """The reference module and the eager module over cases, always on copies of the inputs.

    Where both are one module and the reference is of float64, it is turned from one to the other as they are asked for.
    """

    def __init__(
        self,
        definition: ModelDef,
        eager: nn.Module,
        double: nn.Module,
        precision: str,
        around_eager: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.definition = definition
        self._eager = eager
        self._double = double
        self._in_double = precision == "float64"
        self._turning = define.Turning(double) if self._in_double and double is eager else None
        self._around_eager = around_eager

    def eager(self, case: Case, inputs: Arrays) -> dict[str, Array]:
        """What eager PyTorch computes in the model's own precision."""
        return self._run(False, case, inputs)

    def reference(self, case: Case, inputs: Arrays) -> dict[str, Array]:
        """What the model computes in float64: parameters, inputs and default dtype."""
        return {name: _doubled(y) for name, y in self._run(True, case, inputs).items()}

    def refuse_random(self, case: Case, inputs: Arrays, first: Arrays) -> None:
        """Runs the reference once more: a model that differs from itself cannot be judged."""
        second = self.reference(case, inputs)
        odd = [name for name in first if not np.array_equal(first[name], second[name], equal_nan=True)]
        if odd:
            written, drawn = _places(self.definition, self._eager, inputs, torch.get_default_dtype())
            if written and not drawn:
                raise _mutated(self.definition, "a buffer of the module", "buffer-mutated", written)
            raise NotProven(
                "non-deterministic",
                f"two runs on the same input give different {odd[0]}",
                where=f"model {self.definition.name}, case {case.name}{drawn}",
                why="no artifact can agree with a model that does not agree with itself",
                next="remove random operations from forward, or make the noise an input",
            )

    def both(self, case: Case, inputs: Arrays) -> tuple[dict[str, Array], dict[str, Array], dict[str, Floor]]:
        """Reference and eager, and eager's error per output.

        Of a sequence, a state's error is the largest over all steps: its last value alone would be a single draw.
        """
        if case.steps == 1:
            y64, y32 = self.reference(case, inputs), self.eager(case, inputs)
            return y64, y32, self._errors(y64, y32)
        stream = self.definition.stream
        assert stream is not None
        whole: tuple[list[Array], list[Array]] = ([], [])
        floors = dict[str, Floor]()
        steps = zip(self._steps(True, case, inputs), self._steps(False, case, inputs), strict=True)
        y64, y32 = dict[str, Array](), dict[str, Array]()
        for raw, y32 in steps:
            y64 = {name: _doubled(y) for name, y in raw.items()}
            for name, floor in self._errors(y64, y32).items():
                floors[name] = floors[name].joined(floor) if name in floors else floor
            whole[0].append(y64[stream.output])
            whole[1].append(y32[stream.output])
        y64[stream.output], y32[stream.output] = (np.concatenate(pieces, stream.axis) for pieces in whole)
        return y64, y32, floors | {stream.output: self._errors(y64, y32)[stream.output]}

    def floors(self, case: Case, held: Arrays, draws: int) -> tuple[dict[str, Floor], dict[str, Array]]:
        """Eager's error per output over a case and its draws, and its drift, where ``held`` has the reference."""
        inputs, y64 = under(held, "input/"), under(held, "reference/")
        if case.steps == 1:
            y32 = self.eager(case, inputs)
            noise = self._errors(y64, y32)
        else:  # what a state was after each step is not kept
            y64, y32, noise = self.both(case, inputs)
        return self.joined_draws(case, inputs, noise, draws), self.drift(case, y64, y32)

    def joined_draws(self, case: Case, inputs: Arrays, noise: Mapping[str, Floor], draws: int) -> dict[str, Floor]:
        """The error of a case joined with that of more of its kind."""
        joined_noise = dict(noise)
        for draw in range(1, draws):
            again = planning.nearby(inputs, case, draw) if case.scale == "sample" else None
            more = self.both(case, again or planning.generated_inputs(self.definition, case, draw))[2]
            joined_noise = {name: floor.joined(more[name]) for name, floor in joined_noise.items()}
        return joined_noise

    def drift(self, case: Case, y64: Arrays, y32: Arrays) -> dict[str, Array]:
        """Of a sequence, eager's relative error after each step of the streamed output."""
        stream = self.definition.stream
        if case.steps == 1 or stream is None:
            return {}
        name = stream.output
        return {name: np.array(step_errors(y32[name], y64[name], stream.axis, case.steps))}

    def undecided(self, case: Case, inputs: Arrays, y64: Arrays, within: float) -> dict[str, NDArray[np.bool_]]:
        """Which whole numbers among the outputs hang on rounding alone; see :func:`decisions.undecided`."""
        if all(np.issubdtype(y.dtype, np.floating) for y in y64.values()):
            return {}
        with decisions.noted() as exact:
            self.reference(case, inputs)
        with decisions.noted() as own:
            self.eager(case, inputs)
        return decisions.undecided(y64, (exact, own), partial(self.reference, case, inputs), within)

    def _errors(self, y64: Arrays, y32: Arrays) -> dict[str, Floor]:
        """Eager's relative and largest element error per output."""
        floors = {}
        for tensor in self.definition.outputs:
            found = compare("", tensor.name, y32[tensor.name], y64[tensor.name], tensor.dtype)
            floors[tensor.name] = Floor(relative(found.error_l2, found.reference_l2), found.max_abs)
        return floors

    def end(self) -> None:
        """The module as it was given."""
        if self._turning is not None:
            self._turning.back()

    def _run(self, reference: bool, case: Case, inputs: Arrays) -> dict[str, Array]:
        """One call, or a sequence of them: the streamed output joined, every state's last value."""
        if case.steps == 1:
            return self._call(reference, inputs)
        assert self.definition.stream is not None
        return joined(self._steps(reference, case, inputs), self.definition.stream)

    def _steps(self, reference: bool, case: Case, inputs: Arrays) -> Iterator[dict[str, Array]]:
        """The outputs of every step on the model's own fed-back state."""
        assert self.definition.stream is not None
        call = partial(self._call, reference)
        return driven(call, inputs, case.steps, self.definition.stream, self.definition.state)

    def _call(self, reference: bool, inputs: Arrays) -> dict[str, Array]:
        module, double = self._double if reference else self._eager, reference and self._in_double
        if self._turning is not None:
            (self._turning.to_double if double else self._turning.back)()
        dtype = torch.float64 if double else torch.get_default_dtype()
        around = define.in_float64(module) if double else self._around_eager()
        with torch.inference_mode(), around:
            # Made inside: what rounds every value rounds the inputs as well.
            tensors = [_tensor(inputs[t.name], dtype).clone() for t in self.definition.inputs]
            copies = [tensor.clone() for tensor in tensors]
            counts = {name: int(inputs[name]) for name in self.definition.repeats}
            # Numbers and None beside the tensors are no outputs.
            outputs = [leaf for leaf in tree_leaves(module(*copies, **counts)) if isinstance(leaf, torch.Tensor)]
            for tensor, given, before in zip(self.definition.inputs, copies, tensors, strict=True):
                if not torch.equal(given.nan_to_num(), before.nan_to_num()):
                    place, _ = _places(self.definition, module, inputs, dtype)
                    raise _mutated(self.definition, f"its input {tensor.name}", "input-mutated", place)
            _refuse_wrong_count(self.definition, outputs)
            named = zip(self.definition.outputs, outputs, strict=True)
            return {tensor.name: value.numpy().copy() for tensor, value in named}


def _tensor(value: Array, dtype: torch.dtype) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(value))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _doubled(y: Array) -> Array:
    return y.astype(np.float64) if np.issubdtype(y.dtype, np.floating) else y


def _buffer_digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, buffer in module.named_buffers():
        digest.update(name.encode())
        digest.update(buffer.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _places(definition: ModelDef, module: torch.nn.Module, inputs: Arrays, dtype: torch.dtype) -> tuple[str, str]:
    """Where in the user's code a module writes to what it should leave alone, and where it draws at random."""
    tensors = [_tensor(inputs[tensor.name], dtype).clone() for tensor in definition.inputs]
    counts = {name: int(inputs[name]) for name in definition.repeats}
    with torch.inference_mode():
        return places(module, tensors, lambda given: module(*given, **counts))


def _mutated(definition: ModelDef, what: str, code: str, place: str) -> NotProven:
    return NotProven(
        code,
        f"forward writes to {what}",
        where=f"model {definition.name}{place}",
        why="the second run differs from the first; a graph has no memory and would silently drop the change",
        next="work on a copy, or return the new value and declare it as State in the definition",
    )


def _refuse_wrong_count(definition: ModelDef, outputs: Sequence[torch.Tensor]) -> None:
    if len(outputs) != len(definition.outputs):
        raise NotProven(
            "wrong-outputs",
            f"forward returns {len(outputs)} tensors, the definition names {len(definition.outputs)}",
            where=f"model {definition.name}",
            why="an output without a name is an output nobody compares",
            next="name every output of forward, in order, in the definition",
        )
