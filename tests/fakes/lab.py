"""A laboratory: built-in models made small, judged in this process by the very code that judges exports.

Only where a stage runs differs from an export: here, so that hundreds of verifications fit in a minute. What children
do when they crash is tested with real ones in ``tests/faults``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

from exporter import hops, lower, preflight, program, registry
from exporter.budget import Budget
from exporter.errors import ExporterError, NotProven, Refused, StageFailed
from exporter.isolate import Outcome
from exporter.lower import Lowered
from exporter.manifest import Manifest
from exporter.parity.cases import guarding
from exporter.parity.worker import quiet_polygraphy
from exporter.spec import Dim, ModelDef
from exporter.stages import Stages
from exporter.target import Artifact, Options, Target
from exporter.verdict import Hop, Verdict


def small_dims(definition: ModelDef) -> list[str]:
    """``--dim`` texts that keep min and opt and cut max to about three times opt: every rule, little arithmetic."""
    return [f"{d.name}={cut(d)}" for d in definition.dims if not d.fixed]


def cut(dim: Dim) -> Dim:
    """The dim with a largest size near three times opt."""
    top = max(size for size in range(dim.opt, min(dim.max, 3 * dim.opt + 11) + 1) if dim.allows(size))
    return dataclasses.replace(dim, max=top)


def build_of(model: str, seed: int = 0, checkpoint: Path | None = None) -> dict[str, Any]:
    """The request for a model at small sizes."""
    dims = small_dims(registry.model(model))
    weights = str(checkpoint) if checkpoint else None
    return {"model": model, "options": {}, "dims": dims, "checkpoint": weights, "seed": seed}


class Silent:
    """A channel to nobody."""

    def send(self, value: Any) -> None:
        json.dumps(value)


class Here:
    """Stands in for :class:`exporter.stages.Stages`: the same functions and requests, in this process."""

    def attempt(self, stage: str, function: str, request: Mapping[str, Any]) -> Outcome:
        module, _, name = function.partition(":")
        asked = json.loads(json.dumps(request, default=dict))
        verdict, error, value = Verdict.PASS, None, None
        try:
            value = json.loads(json.dumps(getattr(importlib.import_module(module), name)(asked, Silent())))
        except ExporterError as caught:
            verdict = {NotProven: Verdict.FAIL, Refused: Verdict.INVALID}.get(type(caught), Verdict.CRASHED)
            error = caught
        except Exception as caught:
            verdict, error = Verdict.CRASHED, StageFailed("crashed", f"{type(caught).__name__}: {caught}")
        return Outcome(value, verdict, error, 0.0, 0, Path("-"), error.what if error else None)

    def run(self, stage: str, function: str, request: Mapping[str, Any]) -> Any:
        return self.attempt(stage, function, request).require()


NOTHING = Budget()


@dataclass
class Specimen:
    """One model, traced, simplified and referenced; its artifacts are compiled when first asked for.

    It has what :func:`exporter.hops.artifact_hop` reads of a manifest.
    """

    definition: ModelDef
    build: Mapping[str, Any]
    folder: Path
    traced_graphs: Mapping[str, Path]
    simplified_graphs: Mapping[str, Path]
    case_list: tuple[Mapping[str, Any], ...]
    reference: Mapping[str, Any]
    passes: Mapping[str, Sequence[Mapping[str, str]]]

    def __post_init__(self) -> None:
        self._artifacts: dict[str, Artifact] = {}

    def graphs(self, kind: str) -> Mapping[str, Path]:
        """The ``traced`` or the ``simplified`` graphs."""
        return {"traced": self.traced_graphs, "simplified": self.simplified_graphs}[kind]

    @property
    def traced(self) -> Path:
        (only,) = self.traced_graphs.values()
        return only

    @property
    def simplified(self) -> Path:
        (only,) = self.simplified_graphs.values()
        return only

    @property
    def program(self) -> program.Program:
        return program.program_of(self.definition)

    @property
    def options(self) -> Options:
        return preflight.options_of(self.definition, "fp32", 1)

    @property
    def common(self) -> dict[str, Any]:
        return hops.interface_of(self.definition, self.options)

    def artifact(self, target: str) -> Artifact:
        if target not in self._artifacts:
            self._artifacts[target] = self.compiled(target, self.simplified_graphs, self.folder / target)
        return self._artifacts[target]

    def compiled(
        self, target: str, graphs: Mapping[str, Path], folder: Path, options: Options | None = None
    ) -> Artifact:
        folder.mkdir(parents=True, exist_ok=True)
        return program.compile_graphs(registry.target(target), self.program, graphs, options or self.options, folder)

    def inputs(self, case: Mapping[str, Any]) -> dict[str, Any]:
        from exporter.bundle import read_tensors

        tensors = read_tensors(Path(case["file"]))
        return {k.removeprefix("input/"): v.copy() for k, v in tensors.items() if k.startswith("input/")}

    def case(self, prefix: str) -> Mapping[str, Any]:
        return next(case for case in self.case_list if case["name"].startswith(prefix))

    def verify(
        self,
        target: str,
        artifact: Artifact | None = None,
        stand_in: Target | None = None,
        cases: Sequence[Mapping[str, Any]] | None = None,
        stages: Any = None,
        way: str = "",
        budget: Budget = NOTHING,
    ) -> Hop:
        """The compiled hop, with another artifact or another target in the place of the right one."""
        artifact = artifact or self.artifact(target)
        info = types.SimpleNamespace(
            target=target, precision=artifact.precision, status="compiled", threads=1, stored=artifact.stored,
            forms=artifact.forms, files={role: str(path) for role, path in artifact.files.items()},
            fingerprint=artifact.fingerprint, advice=artifact.advice, options={}, graphs={}, way=way,
            kept={}, left=dict(artifact.left), calibration=None, budget=budget,
        )  # fmt: skip
        listed = [
            types.SimpleNamespace(name=c["name"], scale=c["scale"], steps=c["steps"], file=c["file"])
            for c in (self.case_list if cases is None else cases)
        ]
        d = self.definition
        manifest = types.SimpleNamespace(
            targets={"it": info}, cases=listed, outputs=d.outputs, inputs=d.inputs, state=d.state, stream=d.stream,
            dims=d.dims, after=d.after, program=d.program, yardsticks={},
            graph_tensors=d.graph_tensors, model=types.SimpleNamespace(metrics=d.metrics),
            graphs={name: types.SimpleNamespace(work=str(self.folder / f"{name}.work.json")) for name in d.graphs},
        )  # fmt: skip
        with standing_in(target, stand_in):
            return hops.artifact_hop(Path, manifest, "it", stages or Here())  # type: ignore[arg-type]

    def lowered(self, precision: str) -> Lowered:
        """The graphs in a lower precision and their hop; the yardstick is made once."""
        manifest = types.SimpleNamespace(
            cases=[types.SimpleNamespace(**case) for case in self.reference["cases"]],
            graphs={n: types.SimpleNamespace(simplified=str(path)) for n, path in self.simplified_graphs.items()},
            weights=types.SimpleNamespace(**self.reference["weights"]),
            model=types.SimpleNamespace(name=self.build["model"]),
            outputs=self.definition.outputs, state=self.definition.state, stream=self.definition.stream,
            dims=self.definition.dims, program=self.definition.program, graph_tensors=self.definition.graph_tensors,
        )  # fmt: skip
        file, stages = self.folder / f"{precision}.safetensors", cast("Stages", Here())
        if not file.is_file():
            lower.yardstick(cast("Manifest", manifest), Path, self.build, precision, file, stages)
        place = Path(tempfile.mkdtemp(dir=self.folder)) / precision
        return lower.lowered(cast("Manifest", manifest), Path, precision, [file], place, stages)


@contextlib.contextmanager
def standing_in(name: str, stand_in: Target | None) -> Iterator[None]:
    """Within it, the registry gives ``stand_in`` for the target of that name."""
    right = registry.target
    with mock.patch.object(registry, "target", lambda n: stand_in if stand_in and n == name else right(n)):
        yield


def _texts(paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in paths.items()}


def specimen(model: str, folder: Path, seed: int = 0, checkpoint: Path | None = None) -> Specimen:
    """Takes a model through define, trace, simplify and reference, as :mod:`exporter.graph_stages` does."""
    import torch

    from exporter import graph_stages

    torch.set_num_threads(1)
    quiet_polygraphy()
    build = build_of(model, seed, checkpoint)
    definition = registry.model(model).with_dims(build["dims"])
    folder.mkdir(parents=True, exist_ok=True)
    stages = Here()
    traced = {name: folder / f"{name}.traced.onnx" for name in definition.graphs}
    simplified = {name: folder / f"{name}.simplified.onnx" for name in definition.graphs}
    (folder / "cases").mkdir(exist_ok=True)
    asked = {"build": build, "samples": [], "folder": str(folder / "cases"), "planned": True}
    reference = stages.run("reference", "exporter.reference:write_cases", asked)
    stages.run("trace", "exporter.trace:stage", {"build": build, "outputs": _texts(traced)})
    cases = [graph_stages.case_request(case) for case in reference["cases"]]
    common = hops.interface_of(definition, preflight.options_of(definition, "fp32", 1))
    guard = [graph_stages.case_request(c) for c in guarding(reference["cases"], definition)]
    passes = stages.run(
        "simplify",
        "exporter.simplify:simplify",
        {
            **common,
            "graphs": _texts(traced),
            "simplified": _texts(simplified),
            "cases": guard,
            "work": {name: str(folder / f"{name}.work.json") for name in traced},
            "onnx_tests": str(folder / "onnx-tests"),
        },
    )["passes"]
    return Specimen(definition, build, folder, traced, simplified, tuple(cases), reference, passes)
