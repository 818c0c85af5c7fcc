"""What PyTorch computes inside: the captured program, run in float64, value by value under the graph's own names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from exporter import define
from exporter.diagnose.known import Known
from exporter.parity.ladder import UNIT_ROUNDOFF
from exporter.spec import ModelDef
from exporter.trace import capture, traced_with

Array = NDArray[Any]
HELD = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def captured(build: Mapping[str, Any], graph: str, path: Path) -> tuple[ModelDef, ExportedProgram, str]:
    """Traces a graph once more: its definition, the program that it is translated from, and the weights' digest.

    Args:
        build: as of :func:`define.eager`.
        graph: which of the model's graphs.
        path: the ``.onnx`` file to write.
    """
    definition = define.definition(build)
    module, weights = define.weighted(definition, build["checkpoint"], build["seed"])
    if definition.deploy is not None:
        module = definition.deploy(module)
        define.set_eval(module)
    piece = definition.graph(graph)
    part = define.part_of(definition, graph, module)
    program, symbols = capture(piece, part)
    return piece, traced_with(piece, part, program, symbols, path), weights.digest


def known(definition: ModelDef, program: ExportedProgram, feeds: Mapping[str, Array], folder: Path) -> Known:
    """Every value of a program for these inputs, in float64 and as float32 rounds it.

    Values have the names that the traced graph gives them; its outputs are called as the definition calls them.
    """
    return _known(definition, program, feeds, folder, None)


def answer(definition: ModelDef, program: ExportedProgram, feeds: Mapping[str, Array], folder: Path) -> Known:
    """The outputs of a program and nothing inside, as :func:`known` tells them."""
    outputs = {spec.arg.name for spec in program.graph_signature.output_specs}
    return _known(definition, program, feeds, folder / "answer", outputs)


def _known(
    definition: ModelDef, program: ExportedProgram, feeds: Mapping[str, Array], folder: Path, wanted: set[str] | None
) -> Known:
    found = Known(folder, UNIT_ROUNDOFF["fp32"])
    rounded = _values(definition, program, feeds, torch.float32, wanted)
    for name, value in _values(definition, program, feeds, torch.float64, wanted).items():
        found.add(name, value, rounded[name])
    return found


def _values(
    definition: ModelDef,
    program: ExportedProgram,
    feeds: Mapping[str, Array],
    kind: torch.dtype,
    wanted: set[str] | None,
) -> dict[str, Array]:
    recorder = _Recorder(program, kind, wanted)
    with torch.no_grad():
        recorder.run(*_arguments(definition, program, feeds, kind))
    inputs = {tensor.name: np.asarray(feeds[tensor.name]) for tensor in definition.inputs}
    outputs = [spec.arg.name for spec in program.graph_signature.output_specs]
    named = {t.name: recorder.values[name] for t, name in zip(definition.outputs, outputs, strict=True)}
    return inputs | recorder.values | named


def _arguments(
    definition: ModelDef, program: ExportedProgram, feeds: Mapping[str, Array], kind: torch.dtype
) -> list[Any]:
    """Weights and inputs in the order that the program takes them."""
    given = iter(torch.from_numpy(np.array(feeds[tensor.name])) for tensor in definition.inputs)
    held = {**dict(program.named_buffers()), **dict(program.named_parameters()), **program.constants}
    found = []
    for spec in program.graph_signature.input_specs:
        value = held[str(spec.target)] if spec.kind in HELD else next(given)
        found.append(value.to(kind) if isinstance(value, torch.Tensor) and value.is_floating_point() else value)
    return found


class _Recorder(torch.fx.Interpreter):
    """Runs a program in one floating type, whatever type its operators ask for, and keeps what they give.

    Of some names, where they are told, and of all else.
    """

    def __init__(self, program: ExportedProgram, kind: torch.dtype, wanted: set[str] | None) -> None:
        super().__init__(program.graph_module)
        self._kind, self._wanted, self.values = kind, wanted, dict[str, Array]()

    def run_node(self, n: torch.fx.Node) -> Any:
        """One node; a tensor that it gives is kept under its name."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and n.op == "call_function" and self._keeps(n.name):
            self.values[n.name] = value.detach().numpy().copy()
        return value

    def _keeps(self, name: str) -> bool:
        return self._wanted is None or name in self._wanted

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """An operator that asks for float32 gets the type that everything runs in."""
        asked = torch.fx.node.map_aggregate((args, kwargs), self._wide)
        return super().call_function(target, *asked)

    def _wide(self, value: Any) -> Any:
        return self._kind if isinstance(value, torch.dtype) and value.is_floating_point else value
