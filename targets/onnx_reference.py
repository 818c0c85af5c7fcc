"""The ONNX reference evaluator: slow, and right. Read this target first; it shows the whole of what a target is.

It runs the graph node by node in numpy as the ONNX standard words it, on any machine, and is the second oracle beside
PyTorch: where a fast runtime and eager disagree, this tells who is right. Format: a plain ``.onnx`` file.
https://onnx.ai/onnx/api/reference.html
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from exporter.evaluator import apart, evaluator
from exporter.graph import Graph
from exporter.target import Artifact, Availability, Options, Progress, Ran, Target, silent


class OnnxReference(Target):
    """``exporter onnx-reference MODEL``."""

    name = "onnx-reference"
    extra = "trace"
    precisions = {"fp32": ("fp32", "fp32")}
    rung = "portable"
    beside = ("data",)
    runs_graphs = 9  # the last to be asked: it needs minutes where others need milliseconds

    def available(self) -> Availability:
        try:
            return Availability(True, version("onnx"))
        except PackageNotFoundError:
            return Availability(False, reason="onnx is not installed", next="pip install onnx")

    def compile(self, graph: Graph, options: Options, folder: Path, progress: Progress = silent) -> Artifact:
        files = graph.copied(folder / "model.onnx").roles
        return Artifact(options.precision, files, ("onnx",), {"onnx": version("onnx")}, "fp32")

    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        return self.open_graph(Graph(artifact.files["onnx"]), options)

    def open_graph(self, graph: Graph, options: Options) -> BaseRunner:
        return ReferenceRunner(graph)

    def ran(self, runner: BaseRunner) -> Ran:
        types = runner.float_types()
        return Ran("+".join(sorted(types)) or "none", types, {"reference": sum(types.values())})

    def timer(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray]) -> Callable[[], Mapping[str, np.ndarray]]:
        return lambda: runner.infer(feeds, check_inputs=False)


class ReferenceRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy carries no types
    """Polygraphy runner of the reference evaluator."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(prefix="onnx-reference-runner")
        self._graph = graph

    def activate_impl(self) -> None:
        self._model = self._graph.linked()
        shown, self._weights = apart(self._graph.linked())
        self._session = evaluator(shown)

    def deactivate_impl(self) -> None:
        del self._session, self._model, self._weights

    def get_input_metadata_impl(self) -> Any:
        from onnx.helper import tensor_dtype_to_np_dtype

        metadata = TensorMetadata()
        for value in self._model.graph.input:
            tensor = value.type.tensor_type
            shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
            metadata.add(value.name, tensor_dtype_to_np_dtype(tensor.elem_type), shape)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, np.ndarray]) -> OrderedDict[str, np.ndarray]:
        outputs = self._session.run(None, {**self._weights, **feed_dict})
        return OrderedDict(zip(self._session.output_names, map(np.asarray, outputs), strict=True))

    def float_types(self) -> dict[str, int]:
        """Nodes per floating type, by the types the inferred graph gives their outputs."""
        from onnx import TensorProto, shape_inference

        names = {
            TensorProto.FLOAT: "fp32",
            TensorProto.FLOAT16: "fp16",
            TensorProto.BFLOAT16: "bf16",
            TensorProto.DOUBLE: "fp64",
        }
        inferred = shape_inference.infer_shapes(self._model).graph
        types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
        return dict(Counter(names[types[n.output[0]]] for n in inferred.node if types.get(n.output[0]) in names))
