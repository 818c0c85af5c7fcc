"""What a model definition says of a model: tensors, dims, state, weights, host steps, cases. Values only, no torch.

A definition is a function under :func:`model` in a file of ``model_defs/``; its name with dashes is the name users
type. It returns a :class:`ModelDef`; its keyword arguments are the options of ``--set KEY=VALUE``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.budget import FAIR, Budget
from exporter.errors import Refused, nearest

if TYPE_CHECKING:
    import numpy as np
    import torch

# The size of an axis of an output that is no dim, part or multiple of one.
UNTOLD = "?"
# Before the names of what is true of a sample.
TRUTH = "truth/"
# The name of the graph of a model that has only one.
WHOLE = "model"

Factory = TypeVar("Factory", bound=Callable[..., "ModelDef"])


@dataclass(frozen=True)
class Dim:
    """A named dynamic dimension: every target, profile and case is derived from this one declaration.

    Args:
        name: the name users type and the graph carries.
        min: smallest size.
        opt: the size to optimise for and to trace at.
        max: largest size.
        step: sizes are ``min + k * step``.
        why: what happens outside the range, for whoever asks for it.

    Raises:
        Refused: ``bad-dim`` when the numbers contradict one another.
    """

    name: str
    min: int
    opt: int
    max: int
    step: int = 1
    why: str = field(default="outside it the model is undefined or untested", compare=False)

    def __post_init__(self) -> None:
        ordered = 1 <= self.min <= self.opt <= self.max and self.step >= 1
        if not ordered or not self.allows(self.opt) or not self.allows(self.max):
            raise Refused(
                "bad-dim",
                f"dim {self.name} is {self}",
                why="1 <= MIN <= OPT <= MAX must hold, and OPT and MAX must lie on MIN + k*STEP",
                next=f"--dim {self.name}=MIN:OPT:MAX or MIN:OPT:MAX:STEP",
            )

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}" + (f":{self.step}" if self.step != 1 else "")

    @property
    def fixed(self) -> bool:
        """Whether only one size is allowed."""
        return self.min == self.max

    @property
    def unit(self) -> int:
        """What every allowed size is a multiple of."""
        return math.gcd(self.min, self.step)

    def allows(self, size: int) -> bool:
        """Whether ``size`` lies in the range and on a step."""
        return self.min <= size <= self.max and (size - self.min) % self.step == 0

    def narrowed(self, text: str) -> Dim:
        """This dim restricted as ``--dim NAME=text`` asks: ``VALUE``, ``MIN:OPT:MAX`` or ``MIN:OPT:MAX:STEP``.

        Raises:
            Refused: ``bad-dim`` when the text is no such thing or leaves the declared range or steps.
        """
        allowed = f"within {self.min}..{self.max}" + (f" in steps of {self.step}" if self.step > 1 else "")
        remedy = f"--dim {self.name}={self.opt} or --dim {self.name}={self}"
        numbers = sizes_in(text)
        if not numbers:
            what = f"--dim {self.name}={text} is neither a size nor MIN:OPT:MAX[:STEP]"
            raise Refused("bad-dim", what, why=f"{self.name} may be {allowed}", next=remedy)
        low, opt, high = numbers[:3]
        asked = Dim(self.name, low, opt, high, numbers[3] if len(numbers) == 4 else self.step, self.why)
        if not all(self.allows(size) for size in (asked.min, asked.opt, asked.max)) or asked.step % self.step:
            raise Refused(
                "bad-dim",
                f"--dim {self.name}={text} leaves what the model allows",
                why=f"{self.name} may be {allowed}; {self.why}",
                next=remedy,
            )
        return asked


def sizes_in(text: str) -> list[int]:
    """The numbers of ``VALUE``, ``MIN:OPT:MAX`` or ``MIN:OPT:MAX:STEP``, three or four; none of any other text."""
    try:
        numbers = [int(part) for part in text.split(":")]
    except ValueError:
        return []
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    return numbers if len(numbers) in (3, 4) else []


@dataclass(frozen=True)
class Tensor:
    """A named input or output.

    Args:
        name: the name in the graph.
        shape: sizes; a string names a :class:`Dim`, or a multiple or a part of one: ``"H"``, ``"H/4"``, ``"H*2"``. An
            output's may be :data:`UNTOLD`, where it follows from the dims in no such simple way.
        meaning: what it is, with unit and layout, for the manifest and ``USE.md``.
        dtype: numpy name of the element type.
        low: smallest value the task produces (inputs).
        high: largest value the task produces (inputs).
    """

    name: str
    shape: tuple[int | str, ...]
    meaning: str = ""
    dtype: str = "float32"
    low: float = -1.0
    high: float = 1.0

    def sized(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with every named dim replaced by its size; what is untold counts as 1."""
        return tuple(size_of(entry, sizes) for entry in self.shape)


def size_of(entry: int | str, sizes: Mapping[str, int]) -> int:
    """The size that an entry of a shape stands for: ``64``, ``"H"``, ``"H/4"`` or ``"H*2"``."""
    if isinstance(entry, int):
        return entry
    if entry == UNTOLD:
        return 1
    name, factor, divisor = factors_of(entry)
    return sizes[name] * factor // divisor


def factors_of(entry: str) -> tuple[str, int, int]:
    """``(dim, factor, divisor)`` of a shape's entry: ``"H"`` is ``("H", 1, 1)``, ``"H/4"`` is ``("H", 1, 4)``."""
    found = re.fullmatch(r"([A-Za-z_]\w*)(?:([*/])([1-9][0-9]{0,5}))?", entry)
    if found is None:
        raise Refused(
            "bad-dim",
            f"the shape entry {entry!r} is neither a dim nor a part or multiple of one",
            why="a size is a number, DIM, DIM/N or DIM*N",
            next="write it as in Tensor(shape=(1, 3, 'H', 'W/4'))",
        )
    name, operator, number = found.groups()
    return name, int(number) if operator == "*" else 1, int(number) if operator == "/" else 1


@dataclass(frozen=True)
class State:
    """A recurrent state: what ``output`` gives is fed to ``input`` at the next step; it starts as zeros."""

    input: str
    output: str


@dataclass(frozen=True)
class Stream:
    """How a model with state is driven along a longer signal: one graph call per slice of ``axis``.

    Args:
        input: the input that receives the slices.
        output: the output whose slices are collected.
        axis: the axis that is cut on the way in and joined on the way out.
        steps: how many steps the drift of a verification sequence is followed.
    """

    input: str
    output: str
    axis: int
    steps: int = 611


@dataclass(frozen=True)
class Part:
    """One graph of a model that is driven from outside: several of them, run in order, are the model.

    All values live in one namespace by tensor name: a part reads its inputs from the model's inputs and from what
    parts before it gave, so that a host loop of no model code can run them.

    Args:
        name: the graph's name.
        module: takes the piece that this part is out of the deployed module.
        inputs: the part's inputs, in the order of its ``forward``.
        outputs: the part's outputs, in order.
        repeat: how often it runs; a string names a :class:`Dim`, chosen anew at every run.
        state: after each of its runs, which output is assigned to which input.
    """

    name: str
    module: Callable[[torch.nn.Module], torch.nn.Module]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    repeat: int | str = 1
    state: tuple[State, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step of a program. All values live in one namespace by tensor name.

    The step reads its graph's inputs by name and writes its outputs by name; after each of its ``repeat`` runs the
    outputs named in ``state`` are assigned to the inputs named there. A ``repeat`` that is a name is given anew at
    every run, as a whole number under that name.
    """

    graph: str
    repeat: int | str = 1
    state: tuple[State, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One real input, as a user's file would hold it, with the truth where it is known.

    Args:
        name: becomes part of the case's name.
        values: named arrays: the graph's inputs, or what the definition's ``before`` steps start from (``audio``
            with ``sample_rate``, ``image``, ...).
        truth: what the ``after`` steps should give, by the names that the metrics read (``audio``, ``image``,
            ``disparity``, ``score``).
    """

    name: str
    values: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class HostStep:
    """A step outside the graph, named in ``exporter/host/`` so that a device runs it without model code."""

    step: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """Where published weights are to be had.

    Args:
        address: where a person finds the file.
        sha256: its digest, or None where the publisher gives none.
        licence: the licence of the weights.
    """

    address: str
    sha256: str | None
    licence: str


@dataclass(frozen=True)
class ModelDef:
    """One deployable model.

    Args:
        name: the name users type.
        family: the file or folder of ``model_defs/`` it lives in.
        build: makes the module as it was trained, with the published checkpoint's keys: the reference.
        inputs: the graph's inputs, in ``forward`` order.
        outputs: the graph's outputs, in order.
        source: where the architecture was published.
        licence: the licence of this definition.
        deploy: turns the built module into the form that is traced; the same function of the same inputs, written
            for deployment. The traced hop compares it with ``build``'s module, so a wrong rewrite is a FAIL.
        dims: the dynamic dimensions.
        state: recurrent state.
        stream: how a model with state is driven along a signal.
        checkpoint: published weights.
        before: host steps from the user's file to the inputs.
        after: host steps from the outputs to the user's file.
        metrics: names of the task metrics in ``exporter/host/metrics.py``, the chief one first.
        samples: gives the real inputs that are cases beside the generated ones, as far as they are at hand here.
        calibration: gives the real inputs that a quantiser takes its scales from, apart from ``samples``.
        budget: what int8, and what ``--precision auto`` chooses, may cost; losses are of metrics on real inputs.
        parts: the graphs of a model that a host loop drives; empty for a model of one graph. A dim that a part's
            ``repeat`` names is no size of a tensor: the reference module gets it as a keyword argument of ``forward``.
        undetectable: weight tensors whose change by 1 % no case can see, each with the reason in a comment.
        metadata: texts that the graph file carries for its users, by key.
        options: the values of ``--set`` it was made with.
        weighted: whether ``build`` gives the module its weights; else they are a checkpoint's, or seeded.
        notes: what is to be told beside the first verdict, such as a range that was guessed.
    """

    name: str
    family: str
    build: Callable[[], torch.nn.Module]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    source: str
    licence: str
    deploy: Callable[[torch.nn.Module], torch.nn.Module] | None = None
    dims: tuple[Dim, ...] = ()
    state: tuple[State, ...] = ()
    stream: Stream | None = None
    checkpoint: Checkpoint | None = None
    before: tuple[HostStep, ...] = ()
    after: tuple[HostStep, ...] = ()
    metrics: tuple[str, ...] = ()
    samples: Callable[[], Iterable[Sample]] | None = None
    calibration: Callable[[], Iterable[Sample]] | None = None
    budget: Budget = field(default_factory=partial(Budget, decibels=FAIR))
    parts: tuple[Part, ...] = ()
    undetectable: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    weighted: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _refuse_unknown_dims(self)

    @property
    def repeats(self) -> tuple[str, ...]:
        """The dims that count how often a part runs, and are no size of a tensor."""
        return tuple(dict.fromkeys(part.repeat for part in self.parts if isinstance(part.repeat, str)))

    @property
    def graphs(self) -> tuple[str, ...]:
        """The names of its graphs, in the order they run."""
        return tuple(dict.fromkeys(part.name for part in self.parts)) or (WHOLE,)

    @property
    def program(self) -> tuple[Step, ...]:
        """How its graphs run."""
        return tuple(Step(part.name, part.repeat, part.state) for part in self.parts) or (Step(WHOLE),)

    def graph_tensors(self, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Inputs and outputs of one of its graphs."""
        graph = self.graph(name)
        return graph.inputs, graph.outputs

    def graph(self, name: str) -> ModelDef:
        """The definition of one of its graphs: the part's tensors in the place of the model's."""
        if not self.parts:
            return self
        part = next(part for part in self.parts if part.name == name)
        used = {factors_of(entry)[0] for t in part.inputs for entry in t.shape if isinstance(entry, str)}
        return replace(
            self, name=f"{self.name}/{name}", inputs=part.inputs, outputs=part.outputs, parts=(), state=(), stream=None,
            dims=tuple(dim for dim in self.dims if dim.name in used),
        )  # fmt: skip

    def with_dims(self, asked: Sequence[str]) -> ModelDef:
        """This definition with ``--dim NAME=...`` applied.

        Args:
            asked: the texts after ``--dim``.

        Raises:
            Refused: ``bad-dim`` for an unknown name, a repeated one, or sizes outside the declared range.
        """
        dims = {dim.name: dim for dim in self.dims}
        seen: set[str] = set()
        for text in asked:
            name, found, value = text.partition("=")
            if not found or name not in dims or name in seen:
                known = ", ".join(f"{dim.name} ({dim})" for dim in self.dims) or "none: every size is fixed"
                problem = "is given twice" if name in seen else f"names no dim of {self.name}"
                raise Refused(
                    "bad-dim",
                    f"--dim {text} {problem}{nearest(name, list(dims))}",
                    where=f"model {self.name}",
                    why=f"the dims of {self.name} are: {known}",
                    next=f"exporter models {self.name}",
                )
            seen.add(name)
            dims[name] = dims[name].narrowed(value)
        return replace(self, dims=tuple(dims.values()))

    def opt_sizes(self) -> dict[str, int]:
        """The size of every dim that the model is traced at and optimised for."""
        return {dim.name: dim.opt for dim in self.dims}


def _refuse_unknown_dims(definition: ModelDef) -> None:
    """A shape or a repeat that names no dim would otherwise fail far from here, in a child."""
    known = [dim.name for dim in definition.dims]
    tensors = [*definition.inputs, *(t for part in definition.parts for t in part.inputs)]
    named = [factors_of(entry)[0] for tensor in tensors for entry in tensor.shape if isinstance(entry, str)]
    for name in [*named, *definition.repeats]:
        if name not in known:
            raise Refused(
                "bad-dim",
                f"{name} is no dim of {definition.name}{nearest(name, known)}",
                where=f"definition {definition.name}",
                why="every name in a shape, and every named repeat, is a Dim with a range",
                next=f"add Dim({name!r}, MIN, OPT, MAX) to dims",
            )
    units = {dim.name: dim.unit for dim in definition.dims}
    for entry in (entry for tensor in tensors for entry in tensor.shape if isinstance(entry, str)):
        name, _, divisor = factors_of(entry)
        if units[name] % divisor:
            raise Refused(
                "bad-dim",
                f"{entry} is no whole number for every size of {name}",
                where=f"definition {definition.name}",
                why=f"the sizes of {name} are multiples of {units[name]}",
                next=f"give {name} a min and a step that {divisor} divides",
            )


def model(factory: Factory) -> Factory:
    """Marks a function of ``model_defs/`` as a model definition; its name with dashes is what users type."""
    factory.__exporter_model__ = model_name(factory.__name__)  # type: ignore[attr-defined]
    return factory


def collection(factory: Factory) -> Factory:
    """Marks a function of ``model_defs/`` that makes a definition of any name of a library: ``NAME:WHAT``.

    Its first parameter is what stands after the colon; the others are options of ``--set``. It is called in children
    alone, and may import what it likes.
    """
    factory.__exporter_collection__ = model_name(factory.__name__)  # type: ignore[attr-defined]
    return factory


def model_name(function_name: str) -> str:
    """The name users type for a definition function: ``gtcrn_stream`` -> ``gtcrn-stream``."""
    return function_name.replace("_", "-")
