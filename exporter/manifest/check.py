"""What types cannot say of a manifest: numbers in bounds, names that refer to something, files that are declared."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from exporter.budget import POOR, Budget
from exporter.errors import Refused
from exporter.external import GRAPH
from exporter.manifest.limits import (
    MAX_COMPONENTS,
    MAX_COUNT,
    MAX_ELEMENTS,
    MAX_FILE_BYTES,
    MAX_RANK,
    MAX_SIZE,
    MAX_WHOLE,
)
from exporter.manifest.names import check_file_name, no_clash
from exporter.manifest.refusal import at, shown, wrong
from exporter.manifest.schema import (
    DTYPES,
    PASS_VERDICTS,
    STATUSES,
    WEIGHT_KINDS,
    Manifest,
    TargetInfo,
    mentioned,
)
from exporter.manifest.text import checked_name
from exporter.spec import UNTOLD, Tensor, factors_of
from exporter.target import INTEGER


def check(manifest: Manifest) -> None:
    """What types cannot say: numbers in bounds, names that refer to something, files that are declared."""
    _digest(manifest.key, "key")
    _check_model(manifest)
    _check_tensors(manifest)
    _check_flow(manifest)
    _check_cases(manifest)
    for key, target in manifest.targets.items():
        _check_target(manifest, key, target, f"targets.{key}")
    _check_files(manifest)
    for place, name in mentioned(manifest):
        check_file_name(name, place)
        if name not in manifest.files:
            wrong(place, f"the file {name!r} is not in files", "a file without a digest could be anything")
    for place, name in _graphs(manifest):
        if not name.endswith(GRAPH):
            wrong(place, f"the graph {name!r} does not end in {GRAPH}", "by that it is known that it may name others")


def _graphs(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Every file that is a graph, with the place in the JSON that says so."""
    for name, graph in manifest.graphs.items():
        yield f"graphs.{name}.traced", graph.traced
        yield f"graphs.{name}.simplified", graph.simplified
    for key, target in manifest.targets.items():
        yield from ((f"targets.{key}.graphs.{name}", file) for name, file in target.graphs.items())


def _check_model(manifest: Manifest) -> None:
    model, weights = manifest.model, manifest.weights
    checked_name(model.name, "model.name")
    checked_name(model.family, "model.family")
    _within(model.parameters, 0, MAX_WHOLE, "model.parameters")
    _one_of(weights.kind, WEIGHT_KINDS, "weights.kind")
    _digest(weights.digest, "weights.digest")
    if weights.seed is not None:
        _within(weights.seed, 0, MAX_WHOLE, "weights.seed")


def _check_tensors(manifest: Manifest) -> None:
    _unique((dim.name for dim in manifest.dims), "dims")
    for index, dim in enumerate(manifest.dims):
        _within(dim.max, 1, MAX_SIZE, f"dims[{index}].max")
        _within(dim.step, 1, MAX_SIZE, f"dims[{index}].step")
    largest = {dim.name: dim.max for dim in manifest.dims}
    sides = [("inputs", manifest.inputs), ("outputs", manifest.outputs)]
    for name, graph in manifest.graphs.items():
        sides += [(f"graphs.{name}.inputs", graph.inputs), (f"graphs.{name}.outputs", graph.outputs)]
    for side, tensors in sides:
        if not tensors:
            wrong(side, "it is empty")
        _unique((tensor.name for tensor in tensors), side)
        for index, tensor in enumerate(tensors):
            _check_tensor(tensor, largest, f"{side}[{index}]", untold=side.endswith("outputs"))


def _check_tensor(tensor: Tensor, largest: Mapping[str, int], place: str, untold: bool) -> None:
    _one_of(tensor.dtype, DTYPES, f"{place}.dtype")
    if len(tensor.shape) > MAX_RANK:
        wrong(f"{place}.shape", f"it has {len(tensor.shape)} axes; at most {MAX_RANK} are read")
    for axis, size in enumerate(tensor.shape):
        if isinstance(size, str):
            if size != UNTOLD or not untold:
                _known(_dim_of(size, f"{place}.shape[{axis}]"), largest, "dims", f"{place}.shape[{axis}]")
        else:
            _within(size, 0, MAX_SIZE, f"{place}.shape[{axis}]")
    elements = math.prod(tensor.sized(largest))
    if elements > MAX_ELEMENTS:
        wrong(f"{place}.shape", f"it has {elements} elements at its largest; at most {MAX_ELEMENTS} are read")
    if tensor.low > tensor.high:
        wrong(f"{place}.low", f"low {tensor.low} is above high {tensor.high}")


def _dim_of(entry: str, place: str) -> str:
    try:
        return factors_of(entry)[0]
    except Refused as error:
        wrong(place, error.what, error.why)


def _check_flow(manifest: Manifest) -> None:
    inputs = {tensor.name: len(tensor.shape) for tensor in manifest.inputs}
    outputs = {tensor.name: len(tensor.shape) for tensor in manifest.outputs}
    for index, state in enumerate(manifest.state):
        _known(state.input, inputs, "inputs", f"state[{index}].input")
        _known(state.output, outputs, "outputs", f"state[{index}].output")
    stream = manifest.stream
    if stream is not None:
        _known(stream.input, inputs, "inputs", "stream.input")
        _known(stream.output, outputs, "outputs", "stream.output")
        _within(stream.axis, 0, min(inputs[stream.input], outputs[stream.output]) - 1, "stream.axis")
        _within(stream.steps, 1, MAX_COUNT, "stream.steps")
    if not manifest.graphs or not manifest.program:
        wrong("program", "a bundle without a graph or without a program runs nothing")
    for index, step in enumerate(manifest.program):
        _known(step.graph, manifest.graphs, "graphs", f"program[{index}].graph")
        if isinstance(step.repeat, str):
            _known(step.repeat, [dim.name for dim in manifest.dims], "dims", f"program[{index}].repeat")
        else:
            _within(step.repeat, 1, MAX_COUNT, f"program[{index}].repeat")
        for number, state in enumerate(step.state):
            checked_name(state.input, f"program[{index}].state[{number}].input")
            checked_name(state.output, f"program[{index}].state[{number}].output")
    for side, steps in (("before", manifest.before), ("after", manifest.after)):
        for index, host in enumerate(steps):
            checked_name(host.step, f"{side}[{index}].step")
    for name, graph in manifest.graphs.items():
        for index, done in enumerate(graph.passes):
            checked_name(done.name, f"graphs.{name}.passes[{index}].name")
            _one_of(done.verdict, PASS_VERDICTS, f"graphs.{name}.passes[{index}].verdict")


def _check_cases(manifest: Manifest) -> None:
    dims = {dim.name for dim in manifest.dims}
    _unique((case.name for case in manifest.cases), "cases")
    for index, case in enumerate(manifest.cases):
        for dim, size in case.sizes.items():
            _known(dim, dims, "dims", f"cases[{index}].sizes")
            _within(size, 0, MAX_SIZE, f"cases[{index}].sizes.{dim}")
        _within(case.steps, 0, MAX_COUNT, f"cases[{index}].steps")


def _check_target(manifest: Manifest, key: str, target: TargetInfo, place: str) -> None:
    if key != f"{checked_name(target.target, place)}/{checked_name(target.precision, place)}":
        wrong(place, f"the key is not {target.target}/{target.precision}")
    _one_of(target.status, STATUSES, f"{place}.status")
    _within(target.threads, 0, MAX_COUNT, f"{place}.threads")
    _check_budget(target.budget, f"{place}.budget")
    judged_by_eager = target.precision != "fp32" and target.way not in INTEGER
    if target.graphs and judged_by_eager and target.precision not in manifest.yardsticks:
        wrong(f"{place}.graphs", f"there is no yardstick of {target.precision}", "it could not be judged")
    if target.graphs and target.graphs.keys() != manifest.graphs.keys():
        wrong(f"{place}.graphs", "it names some of the graphs and not the others")
    # Of several graphs each has every form: a form is a role of theirs, not of the whole.
    prefixes = [""] if len(manifest.graphs) == 1 else [f"{graph}." for graph in manifest.graphs]
    for role in [prefix + form for form in target.forms for prefix in prefixes]:
        _known(role, target.files, f"{place}.files", f"{place}.forms")
    if target.status == "compiled" and not target.forms:
        wrong(f"{place}.forms", "it is compiled and has no form that runs")


def _check_budget(budget: Budget, place: str) -> None:
    bounds = {"amplification": budget.amplification, "decibels": budget.decibels}
    bounds |= {f"losses.{metric}": bound for metric, bound in budget.losses.items()}
    for name, bound in bounds.items():
        if bound is not None and bound < (POOR if name == "decibels" else 0):
            wrong(f"{place}.{name}", f"{bound:g} is no bound", "what is below that would be met by anything")


def _check_files(manifest: Manifest) -> None:
    spelling: dict[str, str] = {}
    for name, info in manifest.files.items():
        place = at("files", name)
        check_file_name(name, place)
        _digest(info.sha256, f"{place}.sha256")
        _within(info.bytes, 0, MAX_FILE_BYTES, f"{place}.bytes")
        no_clash(name, spelling, place)
    folders = {name.rpartition("/")[0] for name in manifest.files}
    folders |= {"/".join(folder.split("/")[:depth]) for folder in folders for depth in range(1, MAX_COMPONENTS)}
    both = sorted(folders & manifest.files.keys())
    if both:
        wrong(at("files", both[0]), f"{both[0]!r} is a file and a folder")


def _digest(text: str, place: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        wrong(place, f"{shown(text)} is no sha256: 64 digits of 0-9a-f")


def _within(number: int, low: int, high: int, place: str) -> None:
    if not low <= number <= high:
        wrong(place, f"{number} is not within {low}..{high}")


def _one_of(text: str, allowed: Iterable[str], place: str) -> None:
    if text not in allowed:
        wrong(place, f"{shown(text)} is none of {', '.join(sorted(allowed))}")


def _known(name: str, known: Iterable[str], what: str, place: str) -> None:
    if name not in known:
        wrong(place, f"{shown(name)} is not in {what}")


def _unique(names: Iterable[str], place: str) -> None:
    seen: set[str] = set()
    for name in names:
        checked_name(name, place)
        if name in seen:
            wrong(place, f"the name {name!r} is there twice")
        seen.add(name)
