"""A program: the graphs of a model and the loop that runs them, as one runner. No model code, no torch.

Most models are one graph that runs once. Others are several, some of them repeated on their own state; the number of
repetitions may be chosen at every run. Targets know nothing of it: they compile and open one graph at a time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from exporter.errors import Refused
from exporter.graph import Graph
from exporter.spec import State, Step, Tensor
from exporter.target import Artifact, Layer, Options, Problem, Progress, Ran, Target, silent

Array = NDArray[np.generic]
File = TypeVar("File", str, Path)


class Interface(Protocol):
    """What a definition and a manifest both say of a model's graphs."""

    @property
    def outputs(self) -> tuple[Tensor, ...]: ...
    @property
    def program(self) -> tuple[Step, ...]: ...
    def graph_tensors(self, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]: ...


@dataclass(frozen=True)
class Program:
    """What running a model takes beside its graphs' files.

    Attributes:
        steps: what runs, in order.
        shapes: per graph the shape of every input, a string naming a dim.
        gives: per graph the names of its outputs.
        outputs: the names of the model's outputs.
    """

    steps: tuple[Step, ...]
    shapes: Mapping[str, Mapping[str, tuple[int | str, ...]]]
    gives: Mapping[str, Sequence[str]]
    outputs: tuple[str, ...]

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs in the order they first run."""
        return tuple(dict.fromkeys(step.graph for step in self.steps))

    @property
    def single(self) -> bool:
        """Whether it is one graph that runs once: then that graph's runner is the model's."""
        return len(self.steps) == 1 and self.steps[0].repeat == 1

    def as_json(self) -> dict[str, Any]:
        """The program for the way to a child."""
        steps = [{"graph": s.graph, "repeat": s.repeat, "state": [x.__dict__ for x in s.state]} for s in self.steps]
        shapes = {graph: {name: list(shape) for name, shape in given.items()} for graph, given in self.shapes.items()}
        gives = {graph: list(names) for graph, names in self.gives.items()}
        return {"steps": steps, "shapes": shapes, "gives": gives, "outputs": list(self.outputs)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Program:
        """The program that :meth:`as_json` described."""
        steps = tuple(Step(s["graph"], s["repeat"], tuple(State(**x) for x in s["state"])) for s in value["steps"])
        return cls(steps, value["shapes"], value["gives"], tuple(value["outputs"]))


def program_of(interface: Interface) -> Program:
    """The program of a definition or a manifest."""
    tensors = {step.graph: interface.graph_tensors(step.graph) for step in interface.program}
    shapes = {graph: {t.name: t.shape for t in inputs} for graph, (inputs, _) in tensors.items()}
    gives = {graph: [t.name for t in outputs] for graph, (_, outputs) in tensors.items()}
    return Program(interface.program, shapes, gives, tuple(tensor.name for tensor in interface.outputs))


# ----------------------------------------------------------------------------------------------- by a target


def problems(target: Target, program: Program, graphs: Mapping[str, Path], options: Options) -> list[Problem]:
    """Everything a target refuses of any graph."""
    return [
        p for name in program.graphs for p in target.problems(Graph(graphs[name]), _options(program, name, options))
    ]


def prepare_graphs(
    target: Target, program: Program, graphs: Mapping[str, Path], options: Options, folder: Path
) -> dict[str, Path]:
    """What compiling reads, of all graphs; the files of several are told apart by ``GRAPH.ROLE``."""
    made: dict[str, Path] = {}
    for name in program.graphs:
        found = target.prepare(Graph(graphs[name]), _options(program, name, options), _place(program, name, folder))
        made |= {_role(program, name, role): path for role, path in found.items()}
    return made


def by_hand(target: Target, program: Program, graphs: Mapping[str, str], options: Options) -> tuple[str, ...]:
    """How to compile each graph without this program, where the target has such a way."""
    lines = [target.by_hand(graphs[name], _options(program, name, options)) for name in program.graphs]
    return tuple(f"by hand: {line}" for line in lines if line)


def compile_graphs(
    target: Target,
    program: Program,
    graphs: Mapping[str, Path],
    options: Options,
    folder: Path,
    progress: Progress = silent,
) -> Artifact:
    """One artifact of all graphs; the files of several are told apart by ``GRAPH.ROLE``."""
    made = {}
    for name in program.graphs:
        place = _place(program, name, folder)
        made[name] = target.compile(Graph(graphs[name]), _options(program, name, options), place, progress)
    if len(made) == 1:
        return next(iter(made.values()))
    first = next(iter(made.values()))
    forms = tuple(form for form in first.forms if all(form in part.forms for part in made.values()))
    odd = {form for part in made.values() for form in part.forms} - set(
        forms
    )  # a form that not every graph has is none
    files = {_role(program, name, role): path for name, part in made.items() for role, path in part.files.items()
             if role not in odd}  # fmt: skip
    advice = dict.fromkeys(f"{name}: {line}" for name, part in made.items() for line in part.advice)
    left = {f"{name}.{node}": why for name, part in made.items() for node, why in part.left.items()}
    return replace(first, files=files, forms=forms, advice=tuple(advice), left=left)


def _place(program: Program, graph: str, folder: Path) -> Path:
    place = folder if len(program.graphs) == 1 else folder / graph
    place.mkdir(parents=True, exist_ok=True)
    return place


def _role(program: Program, graph: str, role: str) -> str:
    return role if len(program.graphs) == 1 else f"{graph}.{role}"


def open_artifact(
    target: Target, program: Program, artifact: Artifact, options: Options, form: str | None = None
) -> BaseRunner:
    """A runner of the model; nothing is loaded before it is activated."""

    def opened(name: str) -> BaseRunner:
        return target.open(_part(program, artifact, name), _options(program, name, options), form)

    return _runner(program, opened)


def open_graphs(target: Target, program: Program, graphs: Mapping[str, Path], options: Options) -> BaseRunner:
    """A runner of the model's plain graphs."""
    return _runner(program, lambda name: target.open_graph(Graph(graphs[name]), _options(program, name, options)))


def ran(target: Target, runner: BaseRunner) -> Ran:
    """What ran in an active runner, over all graphs."""
    if not isinstance(runner, ProgramRunner):
        return target.ran(runner)
    found = [target.ran(part) for part in runner.parts.values()]
    layers, providers = Counter[str](), Counter[str]()
    differing: dict[str, str] = {}
    for name, each in zip(runner.parts, found, strict=True):
        layers.update(each.layers)
        providers.update(each.providers)
        differing |= {f"{name}.{node}": kind for node, kind in each.differing.items()}
    kinds = {kind for each in found for kind in each.precision.split("+")}
    nodes = {f"{name}.{node}": kind for name, each in zip(runner.parts, found, strict=True)
             for node, kind in each.nodes.items()}  # fmt: skip
    return Ran("+".join(sorted(kinds - {"none"})) or "none", layers, providers, differing, nodes)


def layers(target: Target, runner: BaseRunner, feeds: Mapping[str, Array], runs: int) -> list[Layer]:
    """What each layer of a model takes; of several graphs, each is timed on what it is given in a run of the model."""
    if not isinstance(runner, ProgramRunner):
        return target.layers(runner, feeds, runs)
    found = []
    for name, given in runner.fed(feeds).items():
        each = target.layers(runner.parts[name], given, runs)
        found += [replace(layer, name=f"{name}.{layer.name}", nodes=tuple(f"{name}.{n}" for n in layer.nodes))
                  for layer in each]  # fmt: skip
    return found


def observed(
    program: Program, runner: BaseRunner, feeds: Mapping[str, Array]
) -> tuple[list[tuple[str, dict[str, Array]]], dict[str, Array]]:
    """Runs a model once: what each graph was given, call by call, and the outputs."""
    if isinstance(runner, ProgramRunner):
        return runner.observed(feeds)
    outputs = {name: np.array(value) for name, value in runner.infer(dict(feeds), check_inputs=False).items()}
    return [(program.graphs[0], dict(feeds))], outputs


def timer(target: Target, runner: BaseRunner, feeds: Mapping[str, Array]) -> Callable[[], Any]:
    """A bound call of the model. Of several graphs, their values travel between them as they do for a user."""
    if not isinstance(runner, ProgramRunner):
        return target.timer(runner, feeds)
    program, given = runner, dict(feeds)
    return lambda: program.infer_impl(given)


def _options(program: Program, graph: str, options: Options) -> Options:
    shapes = {name: tuple(shape) for name, shape in program.shapes[graph].items()}
    several = len(program.graphs) > 1
    kept = tuple(node.removeprefix(f"{graph}.") for node in options.kept if not several or node.startswith(f"{graph}."))
    calibration = {graph: options.calibration[graph]} if graph in options.calibration else {}
    prepared = _of_graph(program, graph, options.prepared)
    return replace(options, shapes=shapes, prepared=prepared, kept=kept, calibration=calibration)


def _part(program: Program, artifact: Artifact, graph: str) -> Artifact:
    return replace(artifact, files=_of_graph(program, graph, artifact.files))


def _of_graph(program: Program, graph: str, files: Mapping[str, File]) -> dict[str, File]:
    """The files of one graph, under the roles it knows them by."""
    if len(program.graphs) == 1:
        return dict(files)
    return {role.partition(".")[2]: file for role, file in files.items() if role.startswith(f"{graph}.")}


def _runner(program: Program, opened: Callable[[str], BaseRunner]) -> BaseRunner:
    if program.single:
        return opened(program.graphs[0])
    return ProgramRunner(program, {name: opened(name) for name in program.graphs})


class ProgramRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy carries no types
    """Polygraphy runner of a whole program: its inputs in, its outputs out, the loop inside."""

    def __init__(self, program: Program, parts: Mapping[str, BaseRunner]) -> None:
        super().__init__(prefix="program-runner")
        self.program, self.parts = program, parts

    def activate_impl(self) -> None:
        active: list[BaseRunner] = []
        try:
            for part in self.parts.values():
                part.activate()
                active.append(part)
        except BaseException:
            for part in active:
                with suppress(Exception):
                    part.deactivate()
            raise

    def deactivate_impl(self) -> None:
        for part in self.parts.values():
            part.deactivate()

    def get_input_metadata_impl(self) -> Any:
        """The inputs that no step gives: what a caller has to."""
        metadata, given = TensorMetadata(), set[str]()
        for step in self.program.steps:
            for name, tensor in self.parts[step.graph].get_input_metadata().items():
                if name not in given and name not in metadata:
                    metadata.add(name, tensor.dtype, tensor.shape)
            given |= set(self.program.gives[step.graph])
            if isinstance(step.repeat, str) and step.repeat not in metadata:
                metadata.add(step.repeat, np.dtype(np.int64), ())
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        values = self._run(feed_dict)
        return OrderedDict((name, values[name]) for name in self.program.outputs)

    def fed(self, feeds: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        """What each graph is given when it first runs."""
        calls, _ = self.observed(feeds)
        return dict(reversed(calls))

    def observed(self, feeds: Mapping[str, Array]) -> tuple[list[tuple[str, dict[str, Array]]], dict[str, Array]]:
        """What each graph is given at each of its runs, in order; and the outputs."""
        calls: list[tuple[str, dict[str, Array]]] = []
        values = self._run(feeds, calls)
        return calls, {name: values[name] for name in self.program.outputs}

    def _run(
        self, feeds: Mapping[str, Array], calls: list[tuple[str, dict[str, Array]]] | None = None
    ) -> dict[str, Array]:
        values = dict(feeds)
        for step in self.program.steps:
            part = self.parts[step.graph]
            wanted = list(self.program.shapes[step.graph])
            for _ in range(_count(step, values)):
                inputs = {name: values[name] for name in wanted}
                if calls is not None:
                    calls.append((step.graph, {name: np.array(value) for name, value in inputs.items()}))
                outputs = part.infer(inputs, check_inputs=False)
                values |= outputs
                values |= {state.input: outputs[state.output] for state in step.state}
        return values


def _count(step: Step, values: Mapping[str, Array]) -> int:
    if isinstance(step.repeat, int):
        return step.repeat
    if (
        step.repeat not in values
        or np.size(values[step.repeat]) != 1
        or int(np.asarray(values[step.repeat]).item()) < 1
    ):
        raise Refused(
            "bad-sample",
            f"{step.repeat} is {values.get(step.repeat)}",
            where=f"graph {step.graph}",
            why="it says how often the graph runs: one whole number of at least 1",
            next=f"give {step.repeat} beside the inputs",
        )
    return int(np.asarray(values[step.repeat]).item())
