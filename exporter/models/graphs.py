"""An ONNX file as a model: what its reference evaluator computes in float64 is the reference, in float32 the yardstick.

It takes the place of a module, so that cases, noise and verdicts are those of every other model. The evaluator is
checked as every graph is: in the traced hop a fast runtime runs the same graph, and has to agree. Only children open
one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from exporter.errors import NotProven, Refused
from exporter.evaluator import evaluator, in_float64
from exporter.external import refuse_bad
from exporter.graph import OPSET, Graph
from exporter.lower.worker import in_opset
from exporter.models.derive import OWN, Asked, with_outputs
from exporter.models.given import dim_of
from exporter.models.place import Place
from exporter.spec import Dim, ModelDef, Tensor


class Evaluated(nn.Module):
    """A graph where a module is expected: tensors in a row in, tensors in a row out, in the type of its weights."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.model = model
        self.kind: torch.Tensor
        self.register_buffer("kind", torch.zeros(()))
        for index, tensor in enumerate(model.graph.initializer):
            value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
            if value.is_floating_point():
                self.register_parameter(f"weight{index}", nn.Parameter(value, requires_grad=False))
            else:
                self.register_buffer(f"weight{index}", value)
        self._sessions: dict[torch.dtype, Any] = {}

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the evaluator gives; ``double()`` has it compute in float64."""
        double = self.kind.dtype == torch.float64
        session = self._sessions.get(self.kind.dtype)
        if session is None:
            session = self._sessions[self.kind.dtype] = evaluator(in_float64(self.model) if double else self.model)
        names = [value.name for value in session.proto_.graph.input if value.name not in self._held()]
        outputs = session.run(None, {n: t.numpy() for n, t in zip(names, tensors, strict=True)})
        return tuple(torch.from_numpy(np.array(output)) for output in outputs)

    def _held(self) -> set[str]:
        return {tensor.name for tensor in self.model.graph.initializer}

    def __deepcopy__(self, memo: dict[int, Any]) -> Evaluated:
        return Evaluated(self.model)

    def write(self, path: Path) -> None:
        """The graph, in the place of a trace."""
        Graph.written(path, self.model)


def of_graph(place: Place, asked: Asked) -> ModelDef:
    """The definition of an ONNX file: its inputs and outputs are the graph's, its dims those it names.

    Raises:
        Refused: ``bad-graph`` for a file that is none; ``bad-external-data`` for one whose weights lie where they
            should not; ``missing-operator`` for what the evaluator cannot run;
            ``bad-input``, ``bad-dim``.
    """
    if asked.inputs:
        raise Refused(
            "bad-input",
            f"--input is given, and {place.shown} has its inputs already",
            where=f"MODEL {place.shown}",
            why="a graph says what it takes",
            next="leave --input out; --dim gives the range of its dims",
        )
    model = _loaded(Path(place.place))
    _name_dims(model)
    inputs, dims = _interface(model, asked.dims, place)
    definition = ModelDef(
        place.label, OWN, lambda: Evaluated(model), inputs, (), place.shown, "the user's own", dims=dims, weighted=True
    )
    return with_outputs(definition, Evaluated(model), place, [value.name for value in model.graph.output])


def _loaded(path: Path) -> onnx.ModelProto:
    if path.is_file():
        refuse_bad(path)
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model, full_check=False)
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Refused(
            "bad-graph",
            f"{path.name} does not load: {first[:300]}",
            where=f"file {path.name}",
            why="a graph is a whole ONNX file, with its external data beside it and nowhere else",
            next=f"python -c \"import onnx; onnx.checker.check_model('{path.name}')\"",
        ) from error
    with suppress(NotProven):  # a newer one that cannot be put in older words stays: targets say what they lack
        model = in_opset(model, OPSET)
    taken = set[str]()
    for index, node in enumerate(model.graph.node):
        name = node.name if node.name and node.name not in taken else f"node_{node.op_type}_{index}"
        taken.add(name)
        node.name = name
    return onnx.shape_inference.infer_shapes(model)


def _name_dims(model: onnx.ModelProto) -> None:
    """Gives every open axis a name that a dim can have, in place."""
    held = {tensor.name for tensor in model.graph.initializer}
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and value.name not in held:
                name = re.sub(r"\W", "_", dim.dim_param or f"{value.name}_{axis}")
                dim.dim_param = name if not name[:1].isdigit() else f"d{name}"


def _interface(
    model: onnx.ModelProto, texts: Sequence[str], place: Place
) -> tuple[tuple[Tensor, ...], tuple[Dim, ...]]:
    held = {tensor.name for tensor in model.graph.initializer}
    inputs, ranges = list[Tensor](), dict(text.partition("=")[::2] for text in texts)
    for value in model.graph.input:
        if value.name in held:
            continue
        kind = value.type.tensor_type
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else ""
        if not dtype or dtype.startswith(("complex", "object", "str")):
            raise Refused(
                "bad-graph",
                f"its input {value.name} is no tensor of numbers",
                where=f"graph {place.shown}",
                why="what is compared are numbers",
                next="give the graph tensors of numbers",
            )
        shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
        whole = not dtype.startswith("float")
        inputs.append(Tensor(value.name, shape, "", dtype, 0.0 if whole else -1.0, 1.0))
    named = list(dict.fromkeys(size for tensor in inputs for size in tensor.shape if isinstance(size, str)))
    for name in [*named, *ranges]:
        if name not in ranges or name not in named:
            what = f"dim {name} has no range" if name in named else f"--dim {name}={ranges[name]} names no dim of it"
            raise Refused(
                "bad-dim",
                what,
                where=f"graph {place.shown}",
                why=f"sizes are tested from the least to the largest; its dims are {', '.join(named) or 'none'}",
                next=" ".join(f"--dim {each}=1:4:16" for each in named) or "leave --dim out",
            )
    return tuple(inputs), tuple(dim_of(name, ranges[name]) for name in named)
