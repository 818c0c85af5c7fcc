"""Cases in the layout of ONNX's own backend tests, which every ONNX runtime's test runner reads.

``test_data_set_N/input_I.pb`` and ``output_I.pb`` hold serialised tensors in the graph's order. Format:
https://onnx.ai/onnx/repo-docs/OnnxBackendTest.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from exporter.bundle import read_tensors


def write(cases: Sequence[Mapping[str, Any]], types: Mapping[str, str], model: onnx.ModelProto, folder: Path) -> None:
    """Writes one data set per case.

    Args:
        cases: ``{"file", ...}`` of single calls; their references are rounded to the outputs' own types.
        types: numpy name of every output's type.
        model: the graph, for the order of inputs and outputs.
        folder: gets ``test_data_set_0`` and so on.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in initializers]
    for number, case in enumerate(cases):
        tensors, place = read_tensors(Path(case["file"])), folder / f"test_data_set_{number}"
        place.mkdir(parents=True, exist_ok=True)  # an entry of the cache that was damaged may have left it empty
        for index, name in enumerate(inputs):
            _write(place / f"input_{index}.pb", name, tensors[f"input/{name}"])
        for index, value in enumerate(model.graph.output):
            _write(
                place / f"output_{index}.pb", value.name, tensors[f"reference/{value.name}"].astype(types[value.name])
            )


def _write(path: Path, name: str, array: Any) -> None:
    path.write_bytes(numpy_helper.from_array(array, name).SerializeToString(deterministic=True))
