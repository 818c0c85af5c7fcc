"""What is there to see without working: models, targets, the machine, a bundle."""

from __future__ import annotations

import inspect
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.bundle import Bundle
from exporter.errors import ExporterError, Incomplete
from exporter.spec import ModelDef, Tensor
from exporter.stages import require_torch

PACKAGES = (
    "numpy", "polygraphy", "safetensors", "typer", "rich", "torch", "onnx", "onnxscript", "onnx-ir", "onnxsim",
)  # fmt: skip


def listed_models(name: str | None = None) -> dict[str, Any]:
    """The object of ``exporter models``; parameters are counted by building each model (needs PyTorch)."""
    names = [name] if name else registry.model_names()
    if name:
        registry.model(name)  # a misspelt name is told before what is missing here
    require_torch("counting parameters")
    found, broken = [], []
    for each in names:
        try:
            found.append(_model(registry.model(each)))
        except Incomplete as error:
            if name:
                raise
            broken.append({"name": each, "reason": error.what})
    return {"schema": "exporter.models/1", "models": found, "broken": broken}


def _model(definition: ModelDef) -> dict[str, Any]:
    from exporter.define import parameters

    published, factory = definition.checkpoint, registry.factory(definition.name)
    return {
        "name": definition.name,
        "family": definition.family,
        "parameters": parameters(definition),
        "inputs": [_tensor(t) for t in definition.inputs],
        "outputs": [_tensor(t) for t in definition.outputs],
        "dims": [f"{dim.name}={dim}" for dim in definition.dims],
        "state": [s.input for s in definition.state],
        "metric": ", ".join(definition.metrics) or None,
        "budget": str(definition.budget),
        "summary": (inspect.getdoc(factory) or "").partition("\n")[0],
        "options": {p.name: p.default for p in inspect.signature(factory).parameters.values()},
        "source": definition.source,
        "licence": definition.licence,
        "checkpoint": published.address if published else None,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype, "meaning": tensor.meaning}


def listed_targets() -> dict[str, Any]:
    """The object of ``exporter targets``; a target that cannot be imported is shown with its reason."""
    return {"schema": "exporter.targets/1", "targets": [_target(name) for name in registry.target_names()]}


def _target(name: str) -> dict[str, Any]:
    try:
        target = registry.target(name)
        found = target.available()
        precisions = list(target.precisions)
        options = {name: setting.__dict__ for name, setting in target.settings.items()}
    except (ImportError, ExporterError) as error:
        return {"name": name, "available": False, "version": None, "precisions": [], "options": {},
                "prepares": False, "reason": str(error), "next": ""}  # fmt: skip
    return {
        "name": name,
        "available": found.present,
        "version": found.version,
        "precisions": precisions,
        "options": options,
        "prepares": target.prepares,
        "reason": found.reason,
        "next": found.next,
    }


def diagnosed() -> dict[str, Any]:
    """The object of ``exporter doctor``: what is missing here, what is done elsewhere, and all versions.

    A target that prepares everything anywhere lacks nothing on a machine without its runtime.
    """
    absent = [target for target in listed_targets()["targets"] if not target["available"]]
    problems = [_missing(target) for target in absent if not target["prepares"]]
    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except ImportError:
            versions[package] = "absent"
    if versions["torch"] == "absent":
        problems.append(
            "tracing: torch is not installed; pip install '.[trace]' in a checkout (verify and profile need none)"
        )
    machine = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
    }
    return {
        "schema": "exporter.doctor/1",
        "ok": not problems,
        "problems": problems,
        "elsewhere": [_missing(target) for target in absent if target["prepares"]],
        "machine": machine,
        "versions": versions,
    }


def _missing(target: Mapping[str, Any]) -> str:
    return f"{target['name']}: {target['reason']}; {target['next']}"


def inspected(path: Path) -> dict[str, Any]:
    """The object of ``exporter inspect``; every file is checked against its digest first."""
    from exporter.verification import weights_line

    bundle = Bundle.open(path)
    bundle.check()
    manifest = bundle.manifest
    rows = [["input", t.name, f"{t.shape} {t.dtype} {t.meaning}"] for t in manifest.inputs]
    rows += [["output", t.name, f"{t.shape} {t.dtype}"] for t in manifest.outputs]
    rows += [["dim", d.name, str(d)] for d in manifest.dims]
    rows += [["case", c.name, f"{c.kind}, {c.scale}, {c.steps} steps"] for c in manifest.cases]
    rows += [["pass", p.name, f"{p.verdict} {p.reason}"] for g in manifest.graphs.values() for p in g.passes]
    rows += [
        ["target", key, f"{i.status} {' '.join(i.files.values())} {i.next}"] for key, i in manifest.targets.items()
    ]
    rows += [["report", name, file] for name, file in manifest.reports.items()]
    rows += [["tool", name, found] for name, found in manifest.tools.items()]
    return {
        "schema": "exporter.inspect/1",
        "model": manifest.model.name,
        "parameters": manifest.model.parameters,
        "weights": weights_line(manifest.weights),
        "bytes": sum(info.bytes for info in manifest.files.values()),
        "rows": rows,
    }
