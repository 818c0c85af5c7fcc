"""What a target is. One file of ``targets/`` holds one class; read ``targets/onnx_reference.py`` first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from exporter.spec import factors_of, size_of

if TYPE_CHECKING:
    import numpy as np
    from polygraphy.backend.base import BaseRunner

    from exporter.graph import Graph


UNPROVEN = "unproven"


@dataclass(frozen=True)
class Availability:
    """Whether a target can run here; when not, why and what to do."""

    present: bool
    version: str | None = None
    reason: str = ""
    next: str = ""


@dataclass(frozen=True)
class Problem:
    """One thing of a graph that a target refuses or gets wrong, found before compiling."""

    node: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}; {self.remedy}"


@dataclass(frozen=True)
class Setting:
    """An option of one target alone: ``--option NAME=VALUE``.

    Args:
        default: what holds where it is not given; its type is the option's.
        meaning: one line for ``exporter targets``.
        choices: the values that are allowed; all of that type when empty.
        low, high: the range of a number, both included.
        when: ``build`` where compiling reads it, ``run`` where it may be chosen again at every run.
    """

    default: bool | int | str
    meaning: str
    choices: Sequence[int | str] = ()
    low: int = 0
    high: int = 1 << 62
    when: str = "build"


@dataclass(frozen=True)
class Options:
    """How to compile and open.

    Args:
        precision: the precision asked for, a key of the target's ``precisions``.
        threads: CPU threads of the runtime; 0 leaves the choice to the runtime.
        dims: ``{name: (min, opt, max, step)}`` of every dynamic dim.
        shapes: the shape of every input, a string naming a dim, or a part or multiple of one.
        extra: options of one target alone, by name (:attr:`Target.settings`).
        device: which accelerator of the machine, where there are several.
        host_code: whether the artifact may run code of its own on the host: only one that was built here.
        prepared: the files by role that :meth:`Target.prepare` wrote for this graph, where an export did.
        way: how the graph came to its precision, one of the target's ways to it; nothing for the model's own.
        calibration: by graph, files of inputs to take scales from.
        kept: the nodes that stay out of the precision.
    """

    precision: str = "fp32"
    threads: int = 0
    dims: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    device: int = 0
    host_code: bool = False
    prepared: Mapping[str, str] = field(default_factory=dict)
    way: str = ""
    calibration: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    @property
    def calibration_files(self) -> list[str]:
        """All of them."""
        return [file for files in self.calibration.values() for file in files]

    @property
    def dynamic(self) -> list[str]:
        """The dims that some input has, in the order they are declared."""
        sizes = [size for shape in self.shapes.values() for size in shape if isinstance(size, str)]
        used = {factors_of(size)[0] for size in sizes}
        return [name for name in self.dims if name in used]

    def bounds(self, entry: int | str) -> tuple[int, int, int]:
        """``(min, opt, max)`` of a shape's entry."""
        low, opt, high = ({name: sizes[i] for name, sizes in self.dims.items()} for i in range(3))
        return size_of(entry, low), size_of(entry, opt), size_of(entry, high)


@dataclass(frozen=True)
class Artifact:
    """A compiled model. It belongs to a runtime version and a machine; a graph does not.

    Attributes:
        precision: the precision asked for.
        files: every file by role, such as ``{"xml": ..., "bin": ...}``.
        forms: the roles that can be opened and run on their own; each is verified.
        fingerprint: what must be the same where it is opened, such as the runtime's version.
        stored: the element type the weights are stored in.
        advice: what the user of this artifact should know (unsupported mobile accelerators, large integers, ...).
        left: nodes that compiling left out of the precision that was asked for, with the reason.
    """

    precision: str
    files: Mapping[str, Path]
    forms: tuple[str, ...]
    fingerprint: Mapping[str, str]
    stored: str
    advice: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """What actually ran in an opened artifact.

    Attributes:
        precision: the type the arithmetic ran in: one name, or several joined by ``+`` when mixed; ``UNPROVEN`` where
            the runtime tells nothing of the graph's nodes.
        layers: how many layers ran in each type.
        providers: how many nodes each execution provider or device took.
        differing: nodes that ran in another type than their graph declares, with that type.
        nodes: the type that each node of the graph ran in, as far as the runtime tells; ``*GRU`` stands for every node
            of an operator whose layers it tells without names, where all of them ran in one type.
    """

    precision: str
    layers: Mapping[str, int]
    providers: Mapping[str, int]
    differing: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """How long one layer of a runtime took.

    Attributes:
        name: what the runtime calls it.
        kind: the runtime's own kind of it.
        nodes: the graph's nodes that it computes; empty for one of the runtime's own making.
        ns: nanoseconds, the median over the runs.
        precision: the type it ran in.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    ns: float
    precision: str = ""


@dataclass(frozen=True)
class Imported:
    """What a runtime's own runner said of one model, on a device that runs no Python.

    Attributes:
        calls_ns: nanoseconds of each call, in the order they ran.
        right, wrong: how many of the data sets it answered so, where it compared any.
        unanswered: how many it could not run at all.
        load_ns: what opening took.
        first_ns: what the first run took.
        peak_rss_bytes: the most memory it held.
        requests: how many calls it says that it made.
    """

    calls_ns: tuple[float, ...] = ()
    right: int = 0
    wrong: int = 0
    unanswered: int = 0
    load_ns: float | None = None
    first_ns: float | None = None
    peak_rss_bytes: float | None = None
    requests: int | None = None


# Ways to a precision: written into the types of the graph by the core; left to the runtime, which is told what it may
# compute in; by the target's own quantiser, from values that the model is calibrated on; the same by another target's
# quantiser, written into the graph as Q/DQ; weights alone, which are made float32 again when they are used.
TYPES, HINT, QUANTISED, QDQ, STORED = "types", "hint", "quantised", "qdq", "stored"
# As quantised, the same nodes kept out, and the runtime is told to compute those in bf16; taken where that passes too.
MIXED = "mixed"
# Those of which the target's own quantiser takes the scales; those that take scales from calibration inputs at all.
OWN_SCALES = frozenset({QUANTISED, MIXED})
SCALED = OWN_SCALES | {QDQ}
# Those that eager PyTorch has no counterpart of: judged by the error itself.
INTEGER = SCALED | {STORED}
# Those that write graphs of their own, which are judged before they are compiled.
WRITTEN = frozenset({TYPES, QDQ})

# The first operator set whose convolutions, and most other operators, have bf16.
BF16_OPSET = 22

LOAD, REBUILD, REFUSE = "load", "rebuild", "refuse"


@dataclass(frozen=True)
class Preflight:
    """Whether an artifact may be opened on this machine: ``load``, ``rebuild`` from the graph, or ``refuse``."""

    action: str = LOAD
    reason: str = ""


class DeviceCall(ABC):
    """A bound call on a device of its own, which is timed by that device's clock and leaves its outputs there."""

    @abstractmethod
    def __call__(self) -> Any:
        """Runs once and waits for the end; copies nothing."""

    @abstractmethod
    def elapsed_ns(self) -> float:
        """What the last call took, by the device's own clock."""

    @abstractmethod
    def copies_ns(self) -> tuple[float, float]:
        """What copying the inputs there and the outputs back takes, by the same clock; measured now, once."""

    @abstractmethod
    def outputs(self) -> Mapping[str, np.ndarray]:
        """What the last call wrote, copied to the host."""

    @abstractmethod
    def spoil(self) -> None:
        """Overwrites the outputs there, so that a call that computes nothing is found out."""


def silent(what: str, done: int = 0, of: int = 0) -> None:
    """A progress that nobody watches."""


# Told what a compile does, and how far it is where that is known.
Progress = Callable[[str, int, int], None]


class Target(ABC):
    """A runtime that models are compiled for.

    Class attributes:
        name: what users type (the file's name with dashes).
        extra: the extra of ``pyproject.toml`` that installs the runtime, or None.
        precisions: for each precision users may ask, ``(stored, computed)`` types; anything else that ran is a FAIL.
        lowers: the ways to each precision below the model's own, the fastest first; the next is taken where the one
            before is no PASS.
        without: precisions it does not have, where someone might ask for them, with the reason.
        rung: the rung of the parity ladder its artifacts must stand on (``exporter.parity.ladder``).
        device: what it computes on, as PyTorch calls it: eager is timed there too.
        settings: its own options, by name.
        prepares: whether ``problems`` and ``prepare`` work without the runtime, on any machine.
        guarded: the roles of the files whose opening runs code that came with them: only what this user's machine
            built is opened (:mod:`exporter.trust`).
        opset: the operator set its graphs are written in, or None where any will do (:meth:`opset_of`).
        quantises: whether it can write Q/DQ into a graph, for targets that take int8 from there (:meth:`quantise`).
        runs_graphs: rank among targets that can run a plain ONNX graph for the traced and simplified hops (1 is
            asked first), or None.
        beside: the roles of files that must lie beside a form where it is deployed.
        python_example: how an application runs the artifact from Python, for ``USE.md``.
        cpp_example: the same from C++.
        phone_example: the lines that run it on a phone without Python, for ``USE.md``.
    """

    name: ClassVar[str]
    extra: ClassVar[str | None] = None
    precisions: ClassVar[Mapping[str, tuple[str, str]]]
    lowers: ClassVar[Mapping[str, Sequence[str]]] = {}
    without: ClassVar[Mapping[str, str]] = {}
    rung: ClassVar[str] = "compiled"
    device: ClassVar[str] = "cpu"
    settings: ClassVar[Mapping[str, Setting]] = {}
    prepares: ClassVar[bool] = False
    guarded: ClassVar[frozenset[str]] = frozenset()
    opset: ClassVar[int | None] = None
    quantises: ClassVar[bool] = False
    runs_graphs: ClassVar[int | None] = None
    beside: ClassVar[tuple[str, ...]] = ()
    # Ten lines each for an application; {file} is the artifact, {input} and {output} are the first tensors' names.
    python_example: ClassVar[str] = ""
    cpp_example: ClassVar[str] = ""
    phone_example: ClassVar[str] = ""

    def computes(self, precision: str, way: str) -> str:  # noqa: ARG002  # a default to override
        """What it computes in by a way to a precision; ``a|b`` where either will do."""
        return self.precisions[precision][1]

    def ways(self, precision: str) -> tuple[str, ...]:
        """The ways to a precision that are worth trying on this machine, in that order."""
        return tuple(self.lowers.get(precision, ("",)))

    def rest(self, precision: str, way: str) -> frozenset[str]:  # noqa: ARG002  # a default to override
        """What nodes that are kept out of a precision may run in."""
        return frozenset({"fp32"})

    def opset_of(self, precision: str, way: str) -> int | None:  # noqa: ARG002  # a default to override
        """The operator set that its graphs are written in, by a way to a precision; None where any will do."""
        return self.opset

    def quantise(self, graph: Graph, calibration: Sequence[str], kept: Sequence[str], output: Path) -> dict[str, str]:
        """Writes a graph with symmetric Q/DQ around its products, scales from calibration inputs; for other targets.

        Returns:
            The products that are left as they were, each with the reason.
        """
        raise NotImplementedError(f"{self.name} does not quantise graphs")

    def example_fields(self, precision: str, way: str) -> Mapping[str, str]:  # noqa: ARG002  # a default to override
        """What the examples hold beside files and tensors: how an artifact of a precision is to be opened."""
        return {}

    @abstractmethod
    def available(self) -> Availability:
        """Whether the runtime is installed and usable here. Never raises, never compiles anything."""

    def lacks(self, precision: str, device: int) -> Problem | None:  # noqa: ARG002  # a default to override
        """Why this machine, where it has the runtime, cannot compute in one of the ``precisions``; asked before work.

        Raises:
            Refused: ``bad-option`` where it has no such device.
        """
        return None

    def problems(self, graph: Graph, options: Options) -> list[Problem]:  # noqa: ARG002  # a default to override
        """Every node the target refuses or gets wrong, all at once, before any compile."""
        return []

    def prepare(self, graph: Graph, options: Options, folder: Path) -> Mapping[str, Path]:  # noqa: ARG002
        """Files by role that compiling reads, made under ``folder`` on any machine where the target ``prepares``."""
        return {}

    def by_hand(self, graph: str, options: Options) -> str:  # noqa: ARG002
        """The command that compiles a graph as :meth:`compile` does, for a machine without Python; or nothing."""
        return ""

    @abstractmethod
    def compile(self, graph: Graph, options: Options, folder: Path, progress: Progress = silent) -> Artifact:
        """Compiles the graph into files under ``folder``. Runs in a child of its own and may crash there."""

    def preflight(self, artifact: Artifact, options: Options) -> Preflight:  # noqa: ARG002
        """Whether the artifact fits this machine; asked before anything of it is opened. Never raises."""
        return Preflight()

    @abstractmethod
    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        """A Polygraphy runner of one form (the first unless named); nothing is loaded before it is activated.

        Its outputs are owned copies: a second ``infer`` must not change what the first returned.
        """

    def open_graph(self, graph: Graph, options: Options) -> BaseRunner:
        """A runner of a plain ONNX graph as it is, for targets with a ``runs_graphs`` rank."""
        raise NotImplementedError(f"{self.name} compiles graphs, it does not run them")

    @abstractmethod
    def ran(self, runner: BaseRunner) -> Ran:
        """What ran in this active runner: asked of the very session that gave the answers (ADR 0002)."""

    @abstractmethod
    def timer(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        """A bound call without arguments on preallocated buffers of this active runner: what the profiler times.

        The call returns the outputs by name (they may be the runtime's own buffers, overwritten by the next call); a
        target of another device returns a :class:`DeviceCall`.
        """

    def layers(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray], runs: int) -> list[Layer]:
        """What each layer of this active runner takes, over so many runs."""
        raise NotImplementedError(f"{self.name} cannot time its layers")

    def imported(self, text: str) -> Imported | None:  # noqa: ARG002  # a default to override
        """What a runner of its own printed where there is no Python; None for what none of them prints.

        The text is a stranger's. Never raises.
        """
        return None

    def conditions(self, device: int) -> Mapping[str, Any]:  # noqa: ARG002
        """Clocks, temperature and throttling of the device that timings depend on; read, never changed."""
        return {}
