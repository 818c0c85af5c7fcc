"""A bundle's model, built again where its code is: for references of new samples, and to time eager PyTorch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.manifest import Manifest
from exporter.models.given import text_of
from exporter.models.place import placed
from exporter.request import Request
from exporter.spec import Tensor


@dataclass(frozen=True)
class Code:
    """What a bundle does not hold.

    A bundle never says which code of yours to run: that would let a stranger's bundle choose it.

    Attributes:
        checkpoint: the weights, where they are neither seeded nor the model's own.
        model: ``MODEL`` of a user's own model, as it was exported.
    """

    checkpoint: Path | None = None
    model: str = ""


def missing(manifest: Manifest, code: Code) -> str:
    """Why a bundle's model cannot be built here; nothing where it can."""
    if find_spec("torch") is None:
        return "torch absent"
    if not code.model and not registry.defines(manifest.model.name, manifest.model.family):
        return f"no definition of {manifest.model.name} here: give --model {_model(manifest.model.source)}"
    if code.model and placed(code.model).kind == "graph":
        return "a graph has no eager PyTorch"
    if manifest.weights.kind == "checkpoint" and code.checkpoint is None:
        return "its weights are not in the bundle: give --checkpoint FILE"
    return ""


def _model(source: str) -> str:
    """``MODEL`` where the source says it: of a definition of the user's own it may be any text."""
    return source if re.fullmatch(r"[^:]+:\w+|\S+\.(onnx|pt2)", source) else "MODEL, as it was exported"


def build_of(manifest: Manifest, code: Code) -> dict[str, Any]:
    """What a child needs to build a bundle's model; see :attr:`exporter.request.Request.build`."""
    dims = [f"{dim.name}={dim}" for dim in manifest.dims]
    request = Request(
        code.model or manifest.model.name, "", checkpoint=code.checkpoint, dims=dims,
        settings=dict(manifest.model.options), seed=manifest.weights.seed or 0,
    )  # fmt: skip
    if not code.model:
        return request.build
    own = replace(request, model=placed(code.model).text, own=True)
    return {**own.build, "known": [_text(tensor) for tensor in manifest.inputs]}


def _text(tensor: Tensor) -> str:
    """An input as ``--input`` says it."""
    return f"{text_of(tensor)}:{tensor.low:.17g}:{tensor.high:.17g}"
