"""The definition that ``MODEL`` names, for the parent: registered ones are made here, a user's own is described."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.bundle import read_tensors, under
from exporter.errors import Refused
from exporter.graph import sha256
from exporter.models.described import Described
from exporter.models.place import placed
from exporter.request import Request
from exporter.spec import TRUTH, ModelDef, Sample
from exporter.stages import Progress, Stages, require_torch, scratch, silent


@dataclass(frozen=True)
class Found:
    """A model that was found.

    Attributes:
        definition: what is known of it.
        request: what was asked for, with all that a child needs to build it.
        sources: names and digests of the files that its graph depends on, and of the weights of a user's own model.
        files: where the files lie.
        handed: how tensors reach the ``forward`` of a user's own module; see :func:`exporter.models.call.handed`.
    """

    definition: ModelDef
    request: Request
    sources: tuple[tuple[str, str], ...]
    files: tuple[Path, ...] = ()
    handed: str = ""


def found(request: Request, progress: Progress) -> Found:
    """Finds the model that a request names.

    Raises:
        Refused: it names none, or what is said of its inputs fits nothing.
        NotProven: a user's code does not give a module that runs.
        StageFailed: a user's code crashed, or did not end.
    """
    place = placed(request.model)
    if place.kind == "registered":
        registry.refuse_inputs(request.model, request.inputs)
        definition = registry.model(request.model, request.settings).with_dims(request.dims)
        files = tuple(registry.model_sources(definition.name))
        return Found(definition, request, tuple((path.name, sha256(path)) for path in files), files)
    require_torch("a model of your own")
    if place.kind == "graph":
        _refuse_rounding(request)
    request = replace(request, model=place.text, own=True)
    with scratch() as folder:
        stages = Stages(folder, request.limits, progress)
        seen = stages.run("describe", "exporter.models.own:describe", {"build": request.build})
    described = Described.from_json(seen["described"])
    samples, calibration = (partial(_fetched, request.build, which) for which in ("samples", "calibration"))
    definition = described.definition(
        samples if described.samples else None, calibration if described.calibration else None
    )
    files = tuple(Path(file) for file in seen["files"])
    sources = tuple((name, digest) for name, digest in seen["sources"])
    return Found(definition, request, sources, files, seen["handed"])


def _refuse_rounding(request: Request) -> None:
    """A graph has no eager in a lower precision, which bf16 and fp16 are judged by; int8 is judged by its error."""
    if request.precision not in ("fp32", "int8"):
        raise Refused(
            "unsupported-precision",
            f"an ONNX file has no {request.precision} to compare with",
            where=f"--precision {request.precision}",
            why="a lower precision is judged by what eager PyTorch computes in it, and there is no PyTorch in a graph",
            next="--precision int8, which is judged by its error, or export the model that the graph was made from",
        )


def of_build(build: Mapping[str, Any]) -> ModelDef:
    """The definition that a child builds."""
    if build.get("own"):
        from exporter.models import own

        return own.defined(build)
    return registry.model(build["model"], build["options"]).with_dims(build.get("dims", []))


def _fetched(build: Mapping[str, Any], which: str) -> Iterator[Sample]:
    """A user's own real inputs, made by a child."""
    with scratch() as logs, tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        request = {"build": build, "which": which, "folder": folder}
        stages = Stages(logs, Request("", "").limits, silent)
        for name, file in stages.run(which, "exporter.models.own:samples", request):
            tensors = read_tensors(Path(file))
            values = {key: value for key, value in tensors.items() if not key.startswith(TRUTH)}
            yield Sample(name, values, under(tensors, TRUTH))
