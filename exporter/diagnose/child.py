"""The children that look for the place: they load graphs and artifacts that may crash, and judge nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from exporter import program, registry, simplify
from exporter.bundle import read_tensors, under
from exporter.diagnose import parts
from exporter.diagnose.artifact import Inside
from exporter.diagnose.calls import Call, calls, first_wrong, oracle_runner
from exporter.diagnose.graphs import Against
from exporter.diagnose.known import LEAST, Array, Known, Noise, known, off
from exporter.diagnose.oracle import answered
from exporter.diagnose.probing import Workbench
from exporter.diagnose.result import Birth
from exporter.errors import NotProven
from exporter.graph import Graph
from exporter.isolate import Channel
from exporter.parity.ladder import RUNGS, UNIT_ROUNDOFF
from exporter.parity.worker import quiet_polygraphy, unpacked
from exporter.simplify import passes
from exporter.spec import State, Stream
from exporter.target import Options

Feeds = Mapping[str, Array]
# A pass, the graph before it, and the graph that it makes.
Applied = tuple[str, onnx.ModelProto, onnx.ModelProto]
# Gives the right values for other inputs, into a folder.
Again = Callable[[Feeds, Path], Known]


def in_artifact(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: finds where an artifact goes wrong, case by case.

    Args:
        request: ``target``, ``form``, ``artifact`` (packed) or None where the graphs are run as they are, ``options``,
            ``program``, ``graphs`` (what it is compiled from, by name), ``precision``, ``cases`` (``[{"name", "steps",
            "file"}]``, the smallest first), ``stream``, ``state``, and ``folder``, a place to write to.
        channel: gets a progress event per look.

    Returns:
        ``{"births": [...], "part": ..., "runs", "ends"}``: ``part`` describes what fails by itself in the first case,
        ``ends`` says by case how it ended where no birth was found: ``right``, ``carried`` or ``stale``.
    """
    quiet_polygraphy()
    target, options = registry.target(request["target"]), Options(**request["options"])
    steps, models = program.Program.from_json(request["program"]), _models(request["graphs"])
    folder, precision = Path(request["folder"]), request["precision"]
    # In a lower precision rounding is all that a kernel may err by; in float32 a fused one errs by more.
    limit = LEAST if precision in target.lowers else max(LEAST, RUNGS[target.rung].bound)
    bench = Workbench(target, options, request["form"], folder / "bench", compiles=request["artifact"] is not None)
    births, ends, made = list[Birth](), dict[str, str](), None
    places = dict[str, tuple[int, int]]()  # by graph, where a case before has it
    for number, case in enumerate(request["cases"]):
        place = folder / f"case-{number}"
        memory = _Memory(place, models, precision, limit)
        with ExitStack() as stack:
            runner = stack.enter_context(_opened(request, target, steps, options))
            found = first_wrong(_told(calls(runner, steps, *_driving(request, case)), case, channel), memory.wrong)
        if found is None:
            ends[case["name"]] = "carried" if case["steps"] > 1 or not steps.single else "right"
            continue
        inside = Inside(models[found.graph], found.feeds, memory.last, bench, _teller(channel, case))
        if not inside.answers(found.outputs):
            ends[case["name"]] = "stale"
            continue
        where = inside.born(places.get(found.graph, ()))
        places[found.graph] = where.first_wrong, where.last_right
        birth = replace(inside.birth(where, case["name"]), step=found.step, round=found.round, graph=found.graph)
        if not births and not options.calibration:  # scales are the whole model's: a part of it has none
            nodes, alone = inside.fails_apart(where)
            birth = replace(birth, alone=alone, only=inside.rest_is_right(where.first_wrong))
            other = known(models[found.graph], _halved(found.feeds), folder / "halved", precision)
            nodes = parts.moving(inside.model, nodes, inside.known, other)
            values = parts.Values(inside.known, {})
            made = parts.written(inside.model, nodes, values, parts.Values(other, {}), place, case["name"])
        births.append(birth)
    return {"births": [b.as_json() for b in births], "part": made, "runs": bench.runs, "ends": ends}


def in_simplified(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: finds the pass that makes a graph wrong, and where in the graph it does.

    Args:
        request: ``before`` and ``graphs`` (paths by name, the right ones and the wrong ones), ``passes`` (the names of
            those to apply, in order, or None where one graph is compared with the other as they are), ``precision``
            (what rounding is that of), ``program``, ``cases``, ``stream``, ``state`` and ``folder`` as of
            :func:`in_artifact`.
        channel: gets progress events.

    Returns:
        As :func:`in_artifact`, and ``"pass"``: the pass, or None where the passes of this version make a right graph
        or were not asked for.
    """
    quiet_polygraphy()
    before, after = _models(request["before"]), _models(request["graphs"])
    blamed, made, told = list[str](), dict[str, list[Applied]](), partial(known, precision=request["precision"])

    def chosen(call: Call, folder: Path) -> tuple[onnx.ModelProto, onnx.ModelProto, Known, Again]:
        right, wrong = before[call.graph], after[call.graph]
        values = told(right, call.feeds, folder / "right")
        if call.graph not in made:
            channel.send({"event": "progress", "what": f"passes over graph {call.graph}"})
            made[call.graph] = list(_applied(right, request["passes"], Path(request["folder"])))
        for name, current, candidate in made[call.graph]:
            if Against(candidate, call.feeds, values).wrong:
                blamed.append(name)
                right, wrong = current, candidate
                break
            right = candidate
        if right is not before[call.graph]:
            values.drop()
            values = told(right, call.feeds, folder / "known")
        return right, wrong, values, partial(told, right)

    return _against(request, before, after, chosen, channel) | {"pass": blamed[0] if blamed else None}


def in_traced(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: finds where a traced graph goes wrong against the program that PyTorch captured.

    Args:
        request: ``build``, ``weights`` (the digest they must have), ``graphs``, ``program``, ``cases``, ``stream``,
            ``state`` and ``folder`` as of :func:`in_artifact`.
        channel: gets progress events.

    Returns:
        As :func:`in_artifact`; an end ``before`` says that what PyTorch captured is wrong already.

    Raises:
        NotProven: ``unstable-weights`` where the weights are others.
    """
    quiet_polygraphy()
    from exporter.diagnose import eager

    models, folder = _models(request["graphs"]), Path(request["folder"])
    traced = {}
    for name in models:
        channel.send({"event": "progress", "what": f"tracing {name} again"})
        path = folder / f"{name}.traced.onnx"
        piece, captured, digest = eager.captured(request["build"], name, path)
        if digest != request["weights"]:
            raise NotProven(
                "unstable-weights",
                f"the weights are others ({digest[:12]}) than the bundle's ({request['weights'][:12]})",
                where=f"graph {name}",
                why="a graph is compared with what it was traced from",
                next="give the checkpoint that the bundle was exported with: --checkpoint FILE",
            )
        traced[name] = piece, captured, Graph(path).load()

    def chosen(call: Call, place: Path) -> tuple[onnx.ModelProto | None, onnx.ModelProto, Known, Again]:
        piece, captured, fresh = traced[call.graph]
        wrong = models[call.graph]
        if fresh != wrong:
            again: Again = partial(known, fresh)  # tells more: it has names for what translating puts between
            values, answer = again(call.feeds, place / "fresh"), eager.answer(piece, captured, call.feeds, place)
            if max(answer.off({tensor.name: values.value(tensor.name) for tensor in piece.outputs}).values()) <= LEAST:
                return fresh, wrong, values, again
        again = partial(eager.known, piece, captured)
        return None, wrong, again(call.feeds, place / "known"), again

    right = {name: fresh for name, (_, _, fresh) in traced.items()}
    return _against(request, right, models, chosen, channel) | {"pass": None}


Chosen = Callable[[Call, Path], "tuple[onnx.ModelProto | None, onnx.ModelProto, Known, Again]"]


def _against(
    request: Mapping[str, Any],
    before: Mapping[str, onnx.ModelProto],
    after: Mapping[str, onnx.ModelProto],
    chosen: Chosen,
    channel: Channel,
) -> dict[str, Any]:
    """Finds, case by case, where graphs go wrong against right values, without asking a runtime."""
    steps, folder = program.Program.from_json(request["program"]), Path(request["folder"])
    births, ends, made = list[Birth](), dict[str, str](), None
    for number, case in enumerate(request["cases"]):
        place = folder / f"case-{number}"
        memory = _Memory(place, before, request.get("precision", "fp32"), LEAST)
        if steps.single and case["steps"] == 1:
            inputs, *_ = _driving(request, case)
            found: Call | None = Call(steps.graphs[0], None, 0, inputs, {})
        else:
            with oracle_runner(steps, after) as runner:
                found = first_wrong(_told(calls(runner, steps, *_driving(request, case)), case, channel), memory.wrong)
        if found is None:
            ends[case["name"]] = "carried"
            continue
        right, wrong, values, again = chosen(found, place)
        against = Against(wrong, found.feeds, values, right)
        if not against.wrong:
            whole = steps.single and case["steps"] == 1
            off = _from_reference(case, answered(wrong, found.feeds)) if whole else 0.0
            ends[case["name"]] = "before" if off > against.bound else "right"
            continue
        first, only = against.first()
        birth = against.birth(first, case["name"], only)
        if not births:
            halved = _halved(found.feeds)
            other = again(halved, folder / "halved")
            nodes = parts.moving(wrong, against.region(first), values, other)
            held = parts.Values(values, parts.inner(wrong, nodes, found.feeds, values))
            beside = parts.Values(other, parts.inner(wrong, nodes, halved, other))
            made, birth = parts.written(wrong, nodes, held, beside, place, case["name"]), replace(birth, alone=True)
        values.drop()
        births.append(replace(birth, step=found.step, round=found.round, graph=found.graph))
    return {"births": [b.as_json() for b in births], "part": made, "runs": 0, "ends": ends}


class _Memory:
    """The right values of each call that was looked at; those of the last are kept."""

    def __init__(self, folder: Path, models: Mapping[str, onnx.ModelProto], precision: str, limit: float) -> None:
        self._folder, self._models, self._precision, self._limit, self._count = folder, models, precision, limit, 0
        self.last: Known

    def wrong(self, call: Call) -> bool:
        """Whether a call's answer is wrong for what it was given."""
        self._count += 1
        if self._count > 1:
            self.last.drop()
        self.last = known(self._models[call.graph], call.feeds, self._folder / f"call-{self._count}", self._precision)
        return max(self.last.off(call.outputs).values(), default=0.0) > self._limit


def _from_reference(case: Mapping[str, Any], outputs: Mapping[str, Array]) -> float:
    """How far off an answer is from the model as trained, in units of eager's own error."""
    tensors = read_tensors(Path(case["file"]))
    references, noises = under(tensors, "reference/"), under(tensors, "noise/")
    unit, undecided = UNIT_ROUNDOFF["fp32"], under(tensors, "undecided/")
    outputs = {name: np.where(undecided.get(name, False), references.get(name, y), y) for name, y in outputs.items()}
    found = [
        off(outputs[name], right, Noise(float(noises[name][0]), float(noises[name][1])), unit)
        for name, right in references.items()
        if name in outputs
    ]
    return max(found, default=0.0)


def _applied(model: onnx.ModelProto, names: list[str] | None, folder: Path) -> Iterator[Applied]:
    """Every pass, with the graph before it and the graph it makes."""
    for name, apply, _ in simplify.ORDER:
        if names is not None and name in names:
            candidate = Graph.written(folder / f"{name}.onnx", apply(passes.copied(model))).load()
            yield name, model, candidate
            model = candidate


def _halved(feeds: Feeds) -> dict[str, Array]:
    """Other inputs of the same sizes, so that an answer that never changes is told."""
    return {
        name: (value * value.dtype.type(0.5) if np.issubdtype(value.dtype, np.floating) else value)
        for name, value in feeds.items()
    }


def _models(paths: Mapping[str, str]) -> dict[str, onnx.ModelProto]:
    return {name: Graph(Path(path)).load() for name, path in paths.items()}


def _opened(request: Mapping[str, Any], target: Any, steps: program.Program, options: Options) -> Any:
    if request["artifact"] is None:
        graphs = {name: Path(path) for name, path in request["graphs"].items()}
        return program.open_graphs(target, steps, graphs, options)
    return program.open_artifact(target, steps, unpacked(request["artifact"]), options, request["form"])


def _driving(request: Mapping[str, Any], case: Mapping[str, Any]) -> tuple[Any, int, Stream | None, list[State]]:
    """What runs a case: its inputs, how many steps it takes, and how they follow one another."""
    stream = Stream(**request["stream"]) if request["stream"] else None
    states = [State(**state) for state in request["state"]]
    return under(read_tensors(Path(case["file"])), "input/"), case["steps"], stream, states


def _told(found: Iterator[Call], case: Mapping[str, Any], channel: Channel) -> Iterator[Call]:
    for call in found:
        step = f", step {call.step}" if call.step else ""
        channel.send({"event": "progress", "what": f"case {case['name']}, graph {call.graph}{step}"})
        yield call


def _teller(channel: Channel, case: Mapping[str, Any]) -> Callable[[str, int, int], None]:
    def tell(what: str, done: int, of: int) -> None:
        channel.send({"event": "progress", "what": f"case {case['name']}, {what}", "done": done, "of": of})

    return tell
