"""What a manifest holds, as typed values; a new field or kind of file begins here, and with a new schema number."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from exporter.budget import Budget
from exporter.spec import Dim, HostStep, State, Step, Stream, Tensor

# Stands for the bundle's own place in commands that it holds.
BUNDLE = "BUNDLE"
SCHEMA_NAME = "exporter.bundle"
SCHEMA_NUMBER = 2
SCHEMA = f"{SCHEMA_NAME}/{SCHEMA_NUMBER}"

DTYPES = frozenset({"bool", "float16", "bfloat16", "float32", "float64"}) | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
WEIGHT_KINDS = ("seeded", "checkpoint", "own")
PASS_VERDICTS = ("kept", "dropped", "no change")
STATUSES = ("compiled", "incomplete")


@dataclass(frozen=True)
class ModelInfo:
    """Which model it is, so that the place with its code can build it again."""

    name: str
    family: str
    options: dict[str, Any]
    source: str
    licence: str
    parameters: int
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """Where the weights come from; ``seeded`` ones are noise and every verdict line says so; ``own`` are
    the user's, as the model's own code gives them."""

    kind: str
    digest: str
    source: str
    licence: str
    seed: int | None = None


@dataclass(frozen=True)
class PassRecord:
    """What became of one simplification: ``kept``, ``dropped`` or ``no change``."""

    name: str
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class GraphFiles:
    """One graph before and after simplification, and its own inputs and outputs.

    ``work`` is a file of the multiplications each node takes, ``{node: [operator, count]}``.
    """

    traced: str
    simplified: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    passes: tuple[PassRecord, ...] = ()
    work: str = ""


@dataclass(frozen=True)
class CaseInfo:
    """One set of inputs with its reference, in one file."""

    name: str
    kind: str
    scale: str
    sizes: dict[str, int]
    steps: int
    file: str


@dataclass(frozen=True)
class CalibrationInfo:
    """What a quantiser took its scales from: where it came from, the digest of all of it, a file per input.

    ``real`` says whether they are inputs as users have them; generated ones are noise in the declared range.
    """

    source: str
    digest: str
    files: tuple[str, ...]
    real: bool = True


@dataclass(frozen=True)
class TargetInfo:
    """A compiled artifact, or the place kept for one that another machine has to make.

    ``graphs`` are those it is compiled from where they are not the simplified ones (a lower precision is written into
    them); ``options`` are the target's own. ``way`` is how it came to its precision; the nodes ``kept`` stay out of it,
    each with the reason, and so do those that the target's compiling ``left``; ``budget`` is what it may cost.
    """

    target: str
    precision: str
    files: dict[str, str]
    forms: tuple[str, ...]
    fingerprint: dict[str, str]
    stored: str
    threads: int
    advice: tuple[str, ...] = ()
    status: str = "compiled"
    next: str = ""
    graphs: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    way: str = ""
    kept: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    calibration: CalibrationInfo | None = None
    budget: Budget = field(default_factory=Budget)

    def finish(self, bundle: object) -> str:
        """The command that finishes it, for a bundle that lies there: it may have been moved since."""
        return self.next.replace(BUNDLE, shlex.quote(str(bundle)))


@dataclass(frozen=True)
class FileInfo:
    """What a file must be, to the byte."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle says of itself. ``files`` is filled in when the bundle is committed.

    ``yardsticks`` are files of eager's own error over the cases, one per precision below the model's own.
    """

    model: ModelInfo
    weights: Weights
    key: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    graphs: dict[str, GraphFiles]
    program: tuple[Step, ...]
    dims: tuple[Dim, ...] = ()
    state: tuple[State, ...] = ()
    stream: Stream | None = None
    before: tuple[HostStep, ...] = ()
    after: tuple[HostStep, ...] = ()
    cases: tuple[CaseInfo, ...] = ()
    yardsticks: dict[str, str] = field(default_factory=dict)
    targets: dict[str, TargetInfo] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)
    onnx_tests: tuple[str, ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileInfo] = field(default_factory=dict)
    schema: str = SCHEMA

    @property
    def repeats(self) -> tuple[str, ...]:
        """The dims that count how often a graph runs, and are no size of a tensor."""
        return tuple(dict.fromkeys(step.repeat for step in self.program if isinstance(step.repeat, str)))

    def graph_tensors(self, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Inputs and outputs of one of its graphs."""
        return self.graphs[name].inputs, self.graphs[name].outputs


def mentioned(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Every file the manifest names, with the place in the JSON where it does."""
    for name, graph in manifest.graphs.items():
        yield f"graphs.{name}.traced", graph.traced
        yield f"graphs.{name}.simplified", graph.simplified
        if graph.work:
            yield f"graphs.{name}.work", graph.work
    for index, case in enumerate(manifest.cases):
        yield f"cases[{index}].file", case.file
    for name, file in manifest.yardsticks.items():
        yield f"yardsticks.{name}", file
    for key, target in manifest.targets.items():
        for role, file in target.files.items():
            yield f"targets.{key}.files.{role}", file
        for name, file in target.graphs.items():
            yield f"targets.{key}.graphs.{name}", file
        for index, file in enumerate(target.calibration.files if target.calibration else ()):
            yield f"targets.{key}.calibration.files[{index}]", file
    for name, file in manifest.reports.items():
        yield f"reports.{name}", file
    for index, file in enumerate(manifest.onnx_tests):
        yield f"onnx_tests[{index}]", file
